"""RKD (relational knowledge distillation), a method that compares distances and angles between a batch's samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfRepresentations

__all__ = ["RKDConfig"]


@dataclass(frozen=True, kw_only=True)
class RKDConfig(OfRepresentations):
    """Compares the distances and angles between a batch's samples in student and teacher (RKD; Park et al. 2019).

    Args:
        distance: weight of the loss on distances
        angle: weight of the loss on angles, whose memory grows with the cube of the batch size
    """

    facts = Facts(
        matches="distances and angles between samples",
        reduction="mean over pairs, over triples",
        source="Park 2019",
        own_part="{name}",
    )

    distance: float = 25.0
    angle: float = 50.0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.rkd import RKD

        return RKD(distance=self.distance, angle=self.angle)
