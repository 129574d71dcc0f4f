"""VID (variational information distillation): a method that maximises a bound of the mutual information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting, stages_of
from bnn_itrd.distillers.views import OfEachStage

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["VIDConfig"]


@dataclass(frozen=True, kw_only=True)
class VIDConfig(OfEachStage):
    """Maximises a variational lower bound of the mutual information with the teacher (VID; Ahn et al. 2019).

    Args:
        form: maps (MI-I: each stage predicts the teacher's), logits (MI-L: the student's representation predicts the
            teacher's logits) or both
        reduction: mean over the elements, or sum as in the paper
        batch_norm: for maps, whether the layers that predict are two convolutions with BatchNorm, as in the paper, or
            three without it
        logits_weight: for both, weight of the logits' loss, relative to that of each stage
    """

    facts = Facts(
        matches="Gaussian model of the teacher's maps (`maps`), of its logits (`logits`: other classes may do), "
        "or of `both`",
        owns="three 1x1 convolutions and a variance per stage; a linear layer",
        reduction="mean over elements, sum over stages (`reduction: sum` is the paper's)",
        source="Ahn 2019",
    )

    form: Literal["maps", "logits", "both"] = "maps"
    reduction: Literal["mean", "sum"] = "mean"
    batch_norm: bool = False
    logits_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            self.form != "logits" or not self.batch_norm, "batch_norm", "false with form logits, which has no BatchNorm"
        )
        rule = "1 unless form is both: use weight instead"
        self._require(self.form == "both" or self.logits_weight == 1, "logits_weight", rule)

    def loss(self, setting: Setting) -> Any:
        from torch import nn

        from bnn_itrd.losses.vid import VID, VIDLogits

        def of_logits() -> nn.Module:
            return VIDLogits(setting.student.representation, setting.teacher.logits, reduction=self.reduction)

        if self.form == "logits":
            return of_logits()
        pairs = zip(*stages_of(self.name, setting), strict=True)
        of_maps = [VID(s, t, batch_norm=self.batch_norm, reduction=self.reduction) for s, t in pairs]
        return nn.ModuleList([*of_maps, of_logits()] if self.form == "both" else of_maps)

    @property
    def kept_as(self) -> tuple[str, ...]:
        return ("logits",) if self.form == "logits" else ("losses",)

    def check(self, setting: Setting) -> None:
        if self.form != "logits":
            super().check(setting)

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        if self.form == "logits":
            result: Tensor = loss(student.representation, teacher.logits)
            return result
        of_maps = loss[:-1] if self.form == "both" else loss
        terms = [each(s, t) for each, s, t in zip(of_maps, student.stages, teacher.stages, strict=True)]
        if self.form == "both":
            terms.append(self.logits_weight * loss[-1](student.representation, teacher.logits))
        return terms
