"""PKT (probabilistic knowledge transfer), a distillation method that compares how similar a batch's samples are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfRepresentations

__all__ = ["PKTConfig"]


@dataclass(frozen=True, kw_only=True)
class PKTConfig(OfRepresentations):
    """Compares which samples of a batch are similar in student and teacher (PKT; Passalis and Tefas 2018).

    In each network, the cosine similarities of a sample to those of the batch, moved to [0, 1], are divided by their
    sum. The loss is the KL divergence between the distributions of the two networks.
    """

    facts = Facts(
        matches="probabilities of a cosine kernel",
        reduction="mean over the n² pairs",
        source="Passalis 2018",
        own_part="{name}",
    )

    weight: float = 3e4

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.pkt import pkt_loss

        return pkt_loss
