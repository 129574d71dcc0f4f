"""ITRD: correlation and mutual information of representations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfRepresentations

__all__ = ["ITRDConfig"]


@dataclass(frozen=True, kw_only=True)
class ITRDConfig(OfRepresentations):
    """Information Theoretic Representation Distillation (Miles et al. 2022), eq. 10.

    Args:
        alpha: exponent of the correlation loss: 1.01 for one architecture, 1.5 across architectures
        beta_corr: weight of the correlation loss
        beta_mi: weight of the mutual-information loss
        gather: several processes: statistics over the global batch (otherwise over each process's own)
    """

    facts = Facts(
        matches="correlation and Rényi mutual information of representations",
        owns="linear embedding",
        reduction="log2 of a sum over features, information potentials of Gram matrices",
        source="Miles 2022",
        global_batch="{name} (`gather: true`)",
        own_part="{name} with `gather: false`",
    )

    alpha: float = 1.01
    beta_corr: float = 2.0
    beta_mi: float = 1.0
    gather: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.alpha > 0, "alpha", "> 0")

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.itrd import ITRD

        dims = student_dim, teacher_dim = self.dims(setting)
        loss = ITRD(*dims, alpha=self.alpha, beta_corr=self.beta_corr, beta_mi=self.beta_mi)
        if self.beta_corr == 0 and (self.beta_mi == 0 or student_dim == teacher_dim):
            # Unused: it would wait for a gradient in data-parallel training, and decay without one.
            loss.embed.requires_grad_(False)
        return loss

    @property
    def gathers(self) -> bool:
        return self.gather
