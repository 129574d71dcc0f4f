"""ReviewKD, a distillation method that compares stages, after each of the student's is fused with deeper ones.

The representation, as a map of one pixel, is the last stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from einops import rearrange

from bnn_itrd.distillers.method import Facts, Method
from bnn_itrd.distillers.setting import Setting, stages_of

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["ReviewKDConfig"]


@dataclass(frozen=True, kw_only=True)
class ReviewKDConfig(Method):
    """Compares all stages, after each of the student's is fused with the deeper ones (ReviewKD; Chen et al. 2021).

    Args:
        weight: weight of the term; the paper has values from 0.6 to 8, by the pair of networks
        warmup_epochs: epochs in which the weight rises from 0; 20 of 240 in the paper
    """

    facts = Facts(
        matches="all stages, each fused with the deeper ones",
        owns="a fusion per stage",
        reduction="0.6 to 8, by the pair of networks; mean over elements, sum over stages",
        source="Chen, Liu 2021",
    )

    warmup_epochs: float = 20.0

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.reviewkd import ReviewKD

        student, teacher = stages_of(self.name, setting)
        ends = (setting.student.representation, 1, 1), (setting.teacher.representation, 1, 1)
        return ReviewKD([*student, ends[0]], [*teacher, ends[1]])

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        pairs = ([*o.stages, rearrange(o.representation, "n d -> n d 1 1")] for o in (student, teacher))
        result: Tensor = loss(*pairs)
        return result
