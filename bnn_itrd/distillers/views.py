"""What the losses are shown of the two networks: logits, representations, the maps of stages. Loads without torch."""

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
    """A loss of the two logits, (n, c) twice: the teacher's classes are the student's."""

    compares_logits = True

    def check(self, setting: Setting) -> None:
        if setting.student.logits != setting.teacher.logits:
            raise UserError(
                f"{self.name} compares logits, and the student has {setting.student.logits} classes, the teacher "
                f"{setting.teacher.logits}: use lwf, or one of the representation or of maps (itrd, at, vid ...)"
            )

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.logits, teacher.logits)
        return result


@dataclass(frozen=True, kw_only=True)
class OfRepresentations(Method):
    """A loss of the two representations, the inputs of the classifiers, (n, d_s) and (n, d_t)."""

    def dims(self, setting: Setting) -> tuple[int, int]:
        """Returns d_s and d_t."""
        return setting.student.representation, setting.teacher.representation

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.representation, teacher.representation)
        return result


@dataclass(frozen=True, kw_only=True)
class OfOneStage(Method):
    """A loss of one stage's two maps, (n, c_s, h_s, w_s) and (n, c_t, h_t, w_t).

    stage: which one, from 0, or from the end with -1; None is the middle one.
    """

    signed = ("stage",)

    stage: int | None = -1

    def check(self, setting: Setting) -> None:
        self.shapes(setting)

    def shapes(self, setting: Setting) -> tuple[Shape, Shape]:
        """Returns (c, h, w) of the student's map and of the teacher's."""
        return pick_stage(self.name, setting, self.stage)

    def map_of(self, outputs: Outputs) -> Tensor:
        """Returns the map of the stage."""
        return outputs.stages[len(outputs.stages) // 2 if self.stage is None else self.stage]

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(self.map_of(student), self.map_of(teacher))
        return result


@dataclass(frozen=True, kw_only=True)
class OfEachStage(Method):
    """A loss of two maps, (n, c, h, w) twice, added over the stages."""

    def check(self, setting: Setting) -> None:
        stages_of(self.name, setting)

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        return [loss(s, t) for s, t in zip(student.stages, teacher.stages, strict=True)]


@dataclass(frozen=True, kw_only=True)
class OfAllStages(Method):
    """A loss of all stages' maps at once, in the training or in a phase before it."""

    prepares_student = True
    least: ClassVar[int] = 1

    def shapes(self, setting: Setting) -> tuple[Sequence[Shape], Sequence[Shape]]:
        """Returns (c, h, w) of the student's maps and of the teacher's, at least `least`."""
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
