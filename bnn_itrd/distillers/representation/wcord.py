"""WCoRD (Wasserstein contrastive representation distillation), a method with a memory bank of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.representation.contrast import Contrast
from bnn_itrd.distillers.setting import Setting

__all__ = ["WCoRDConfig"]


@dataclass(frozen=True, kw_only=True)
class WCoRDConfig(Contrast):
    """Brings the networks' features together by Wasserstein distances (WCoRD; Chen et al. 2021).

    Args:
        beta_global: weight of the loss that contrasts a sample with others of a memory bank, as CRD does
        beta_local: weight of the optimal transport between both networks' features within a batch
        embed_dim: number of features of a row in the memory bank, which has a row for each training sample
        negatives: number of samples of other classes, drawn from the bank, that each sample is compared with
        temperature: temperature by which similarities are divided
        momentum: share of its old value that a row of the bank keeps when it is updated, in [0, 1)
        epsilon: weight of the entropy in Sinkhorn's algorithm, which computes the transport
        iterations: number of iterations of Sinkhorn's algorithm
    """

    facts = Facts(
        matches="as `crd`, a dual of the Wasserstein distance, and optimal transport in the batch",
        owns="as `crd`",
        reduction="as `crd`; sum over the plan",
        source="Chen, Wang 2021",
        global_batch="{name}",
    )
    positive = (*Contrast.positive, "epsilon", "iterations")

    beta_global: float = 0.8
    beta_local: float = 0.05
    embed_dim: int = 128
    negatives: int = 16384
    temperature: float = 0.07
    momentum: float = 0.5
    epsilon: float = 0.1
    iterations: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.beta_global + self.beta_local > 0, "beta_global", "> 0 where beta_local is 0")

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.wcord import WCoRD

        return WCoRD(
            *self.dims(setting),
            setting.labels,
            **self.bank(),
            beta_global=self.beta_global,
            beta_local=self.beta_local,
            epsilon=self.epsilon,
            iterations=self.iterations,
        )
