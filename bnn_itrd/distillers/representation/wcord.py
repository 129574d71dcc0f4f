"""WCoRD: Wasserstein contrast of representations with a memory bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.representation.contrast import Contrast
from bnn_itrd.distillers.setting import Setting

__all__ = ["WCoRDConfig"]


@dataclass(frozen=True, kw_only=True)
class WCoRDConfig(Contrast):
    """Contrasts representations by Wasserstein distances: a global dual and a local primal part (Chen et al. 2021).

    Args:
        beta_global: weight of the contrastive part
        beta_local: weight of the transport within a batch
        embed_dim: size of the embeddings in the bank
        negatives: number of negatives that each sample is compared with
        temperature: temperature of the similarities
        momentum: momentum of the bank, in [0, 1)
        epsilon: entropic regularisation of Sinkhorn's iterations
        iterations: iterations of Sinkhorn's algorithm
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
        self._require(self.momentum < 1, "momentum", "in [0, 1)")
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
