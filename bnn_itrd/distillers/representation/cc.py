"""CC (correlation congruence), a distillation method that compares how similar the samples of a batch are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfRepresentations

__all__ = ["CCConfig"]


@dataclass(frozen=True, kw_only=True)
class CCConfig(OfRepresentations):
    """Compares the similarities between a batch's samples in student and teacher (CC; Peng et al. 2019).

    Args:
        weight: weight of the term; the default fits the form consecutive
        embed_dim: number of features to which a linear layer brings each network's representation
        form: consecutive (differences of neighbours in the batch) or kernel (all pairs, as in the paper)
    """

    facts = Facts(
        matches="correlation congruence of embedded representations",
        owns="two linear embeddings",
        reduction="`consecutive`: sum over features, mean over neighbours; `kernel`: mean over pairs, a larger weight",
        source="Peng 2019",
        own_part="{name}",
    )
    positive = ("embed_dim",)

    weight: float = 0.02
    embed_dim: int = 128
    form: Literal["consecutive", "kernel"] = "consecutive"

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.cc import CC

        return CC(*self.dims(setting), embed_dim=self.embed_dim, form=self.form)
