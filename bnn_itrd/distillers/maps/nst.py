"""NST (neuron selectivity transfer), a distillation method that compares the distributions of the channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfEachStage

__all__ = ["NSTConfig"]


@dataclass(frozen=True, kw_only=True)
class NSTConfig(OfEachStage):
    """Compares the channels' distributions by their maximum mean discrepancy, at each stage (NST; Huang, Wang 2017)."""

    facts = Facts(
        matches="second moments of the channels of all stages",
        reduction="mean over pairs of channels, sum over stages",
        source="Huang 2017",
    )

    weight: float = 50.0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.nst import nst_loss

        return nst_loss
