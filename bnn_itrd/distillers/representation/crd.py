"""CRD (contrastive representation distillation), a distillation method with a memory bank of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.representation.contrast import Contrast
from bnn_itrd.distillers.setting import Setting

__all__ = ["CRDConfig"]


@dataclass(frozen=True, kw_only=True)
class CRDConfig(Contrast):
    """Makes both networks' features of a sample similar, and unlike other samples' (CRD; Tian et al. 2020).

    Args:
        embed_dim: number of features of a row in the memory bank, which has a row for each training sample
        negatives: number of samples of other classes, drawn from the bank, that each sample is compared with
        temperature: temperature by which similarities are divided
        momentum: share of its old value that a row of the bank keeps when it is updated, in [0, 1)
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

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.crd import CRD

        return CRD(*self.dims(setting), setting.labels, **self.bank())
