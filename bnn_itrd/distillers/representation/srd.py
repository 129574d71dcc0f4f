"""SRD: normalised representations through a projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfRepresentations

__all__ = ["SRDConfig"]


@dataclass(frozen=True, kw_only=True)
class SRDConfig(OfRepresentations):
    """Linear projection, BatchNorm on both, logarithm of a power (Miles and Mikolajczyk).

    Args:
        exponent: exponent of the difference
    """

    facts = Facts(
        matches="normalised representations through a projection",
        owns="projection, running statistics",
        reduction="logarithm of a sum over samples and features",
        source="Miles 2024",
        own_part="{name}",
    )

    weight: float = 2.0
    exponent: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.exponent >= 1, "exponent", ">= 1")

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.srd import SRD

        return SRD(*self.dims(setting), exponent=self.exponent)
