"""AT (attention transfer), a distillation method that compares where in the image the features are large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfEachStage

__all__ = ["ATConfig"]


@dataclass(frozen=True, kw_only=True)
class ATConfig(OfEachStage):
    """Compares spatial attention maps, at each stage (AT; Zagoruyko and Komodakis 2017).

    An attention map has one number for each position: the mean of |activation|^p over the channels.
    Each is divided by its norm.

    Args:
        p: exponent of the activations' absolute values
    """

    facts = Facts(
        matches="attention maps of all stages",
        reduction="mean over positions, sum over stages",
        source="Zagoruyko 2017",
    )

    weight: float = 1000.0
    p: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.p >= 1, "p", ">= 1")

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.at import AT

        return AT(p=self.p)
