"""Base classes of distillation methods, by what they compare: logits, representations, or the outputs of stages.

The representation is the input of the classifier. The module loads without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bnn_itrd.distillers.method import Method
from bnn_itrd.distillers.setting import Setting, Shape, pick_stage, stages_of
from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["OfAllStages", "OfEachStage", "OfLogits", "OfOneStage", "OfRepresentations"]


@dataclass(frozen=True, kw_only=True)
class OfLogits(Method):
    """Base class of a distillation method that compares logits, (n, c) of each network.

    `check` raises UserError if student and teacher have different numbers of classes.
    """

    compares_logits = True

    def check(self, setting: Setting) -> None:
        if setting.student.logits != setting.teacher.logits:
            raise UserError(
                f"{self.name} compares logits, but the student has {setting.student.logits} classes and the teacher "
                f"{setting.teacher.logits}: use lwf, or a method that compares features (itrd, at, vid ...)"
            )

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.logits, teacher.logits)
        return result


@dataclass(frozen=True, kw_only=True)
class OfRepresentations(Method):
    """Base class of a distillation method that compares the inputs of the classifiers, (n, d_s) and (n, d_t)."""

    def dims(self, setting: Setting) -> tuple[int, int]:
        """Returns the numbers of features of the student's and of the teacher's representation."""
        return setting.student.representation, setting.teacher.representation

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.representation, teacher.representation)
        return result


@dataclass(frozen=True, kw_only=True)
class OfOneStage(Method):
    """Base class of a method that compares the output of one stage, (n, c_s, h_s, w_s) and (n, c_t, h_t, w_t).

    Args:
        stage: number of the stage, from 0, or from the end with -1; None is the middle stage
    """

    signed = ("stage",)

    stage: int | None = -1

    def check(self, setting: Setting) -> None:
        self.shapes(setting)

    def shapes(self, setting: Setting) -> tuple[Shape, Shape]:
        """Returns the (c, h, w) of the stage's output in the student and in the teacher."""
        return pick_stage(self.name, setting, self.stage)

    def map_of(self, outputs: Outputs) -> Tensor:
        """Returns the output of the stage that the method compares, (n, c, h, w), from the outputs of a network."""
        return outputs.stages[len(outputs.stages) // 2 if self.stage is None else self.stage]

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(self.map_of(student), self.map_of(teacher))
        return result


@dataclass(frozen=True, kw_only=True)
class OfEachStage(Method):
    """Base class of a method that compares each stage's outputs, (n, c, h, w) of each network, and adds the losses."""

    def check(self, setting: Setting) -> None:
        stages_of(self.name, setting)

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        return [loss(s, t) for s, t in zip(student.stages, teacher.stages, strict=True)]


@dataclass(frozen=True, kw_only=True)
class OfAllStages(Method):
    """Base class of a method whose loss takes the outputs of all stages at once.

    The loss is used in the training, or in a preparation, which means epochs before it that also train the student.
    `least` is the smallest number of stages that a network must have.
    """

    prepares_student = True
    least: ClassVar[int] = 1

    def shapes(self, setting: Setting) -> tuple[Sequence[Shape], Sequence[Shape]]:
        """Returns the (c, h, w) of each stage's output in the student, and in the teacher.

        Raises UserError if a network has fewer than `least` stages, or if their numbers differ.
        """
        return stages_of(self.name, setting, least=self.least)

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.stages, teacher.stages)
        return result

    def prepare(self, loss: Any, student: Outputs | None, teacher: Outputs) -> Tensor:
        assert student is not None
        result: Tensor = self.weight * loss(student.stages, teacher.stages)
        return result

    def prepared(self, loss: Any) -> None:
        if self.only_prepares:
            loss.requires_grad_(False)
