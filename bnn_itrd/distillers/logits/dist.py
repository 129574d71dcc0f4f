"""DIST, a distillation method that correlates the class probabilities of student and teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfLogits

__all__ = ["DISTConfig"]


@dataclass(frozen=True, kw_only=True)
class DISTConfig(OfLogits):
    """Correlates the networks' softened class probabilities (Pearson), by image and by class (DIST; Huang et al. 2022).

    Args:
        beta: weight of the correlation over the classes of an image
        gamma: weight of the correlation over the batch's images for a class
        tau: temperature by which the logits are divided before the softmax
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
