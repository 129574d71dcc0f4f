"""CRD: contrast of representations with a memory bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.representation.contrast import Contrast
from bnn_itrd.distillers.setting import Setting

__all__ = ["CRDConfig"]


@dataclass(frozen=True, kw_only=True)
class CRDConfig(Contrast):
    """Contrasts the two representations of a sample with those of others in a memory bank (Tian et al. 2020).

    Args:
        embed_dim: size of the embeddings in the bank
        negatives: number of negatives that each sample is compared with
        temperature: temperature of the similarities
        momentum: momentum of the bank, in [0, 1)
    """

    facts = Facts(
        matches="the sample's embedding among `negatives` others",
        owns="two embeddings; two banks of a row per training image",
        reduction="sum over negatives, mean over samples, both directions",
        source="Tian 2020",
        global_batch="{name}",
    )

    weight: float = 0.8
    embed_dim: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.momentum < 1, "momentum", "in [0, 1)")

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.crd import CRD

        return CRD(*self.dims(setting), setting.labels, **self.bank())
