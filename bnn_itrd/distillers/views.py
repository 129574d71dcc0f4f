"""Base classes of methods by the outputs they compare: logits, representations, maps. Loads without torch."""

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
    """A method that compares logits, (n, c) twice; the teacher must have the student's classes."""

    compares_logits = True

    def check(self, setting: Setting) -> None:
        if setting.student.logits != setting.teacher.logits:
            raise UserError(
                f"{self.name} compares logits, and the student has {setting.student.logits} classes, the teacher "
                f"{setting.teacher.logits}: use lwf, or a method of representations or maps (itrd, at, vid ...)"
            )

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        result: Tensor = loss(student.logits, teacher.logits)
        return result


@dataclass(frozen=True, kw_only=True)
class OfRepresentations(Method):
    """A method that compares the representations, the inputs of the classifiers, (n, d_s) and (n, d_t)."""

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
    """A method that compares the maps of one stage, (n, c_s, h_s, w_s) and (n, c_t, h_t, w_t).

    stage: the stage's number, from 0, or from the end with -1; None is the middle stage.
    """

    signed = ("stage",)

    stage: int | None = -1

    def check(self, setting: Setting) -> None:
        self.shapes(setting)

    def shapes(self, setting: Setting) -> tuple[Shape, Shape]:
        """Returns (c, h, w) of the student's and of the teacher's map."""
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
    """A method whose loss compares two maps, (n, c, h, w) twice; the losses of all stages are added."""

    def check(self, setting: Setting) -> None:
        stages_of(self.name, setting)

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        return [loss(s, t) for s, t in zip(student.stages, teacher.stages, strict=True)]


@dataclass(frozen=True, kw_only=True)
class OfAllStages(Method):
    """A method whose loss takes the maps of all stages at once, in the training or in a preparation."""

    prepares_student = True
    least: ClassVar[int] = 1

    def shapes(self, setting: Setting) -> tuple[Sequence[Shape], Sequence[Shape]]:
        """Returns (c, h, w) of the student's and of the teacher's maps, of which there are at least `least`."""
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
