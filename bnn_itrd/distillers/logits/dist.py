"""DIST: correlation of class probabilities between and within classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfLogits

__all__ = ["DISTConfig"]


@dataclass(frozen=True, kw_only=True)
class DISTConfig(OfLogits):
    """Correlates softened class probabilities, by image and by class (Pearson; Huang et al. 2022).

    Args:
        beta: weight of the part between classes
        gamma: weight of the part within classes
        tau: temperature
    """

    facts = Facts(
        matches="Pearson correlation between and within classes",
        reduction="mean over rows, over columns",
        source="Huang 2022",
        own_part="{name} (its columns)",
    )
    positive = ("tau",)

    beta: float = 1.0
    gamma: float = 1.0
    tau: float = 1.0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.dist import DIST

        return DIST(beta=self.beta, gamma=self.gamma, tau=self.tau)
