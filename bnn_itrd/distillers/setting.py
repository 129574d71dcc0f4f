"""The sizes of both networks' outputs and the labels, from which distillers are made. Loads without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Setting", "Shape", "Sizes", "pick_stage", "stages_of"]

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a network's `Outputs` without the batch axis; each stage is (c, h, w)."""

    logits: int
    representation: int
    stages: tuple[Shape, ...]


@dataclass(frozen=True)
class Setting:
    """The facts that a distiller is made from: the sizes of both networks' outputs, and the labels.

    labels: int64 (n,), the labels of all training images in their order, `data.UNLABELLED` for images without one.
    """

    student: Sizes
    teacher: Sizes
    labels: Tensor


def stages_of(name: str, setting: Setting, *, least: int = 1) -> tuple[Sequence[Shape], Sequence[Shape]]:
    """Returns the shapes of the student's and the teacher's stages, which are equally many.

    name: the method's name, for messages. Raises UserError where a network has fewer than `least` stages, or where the
    numbers differ.
    """
    student, teacher = setting.student.stages, setting.teacher.stages
    for who, stages in (("student", student), ("teacher", teacher)):
        if len(stages) < least:
            raise UserError(
                f"{name} compares the maps of stages, and the {who} has {len(stages)} of them: give the "
                "network an attribute `stages`, a tuple of the names of its submodules, or use a distiller of the "
                "representation"
            )
    if len(student) != len(teacher):
        raise UserError(
            f"{name} compares the maps of stages, and the student has {len(student)} of them, the teacher "
            f"{len(teacher)}: name equally many in the attribute `stages` of both networks"
        )
    return student, teacher


def pick_stage(name: str, setting: Setting, stage: int | None) -> tuple[Shape, Shape]:
    """Returns the student's and the teacher's shape of one stage; None is the middle stage.

    `stage` counts from 0, or from the end with -1. Raises UserError where there is no such stage.

    >>> student = Sizes(10, 64, ((16, 8, 8), (32, 4, 4)))
    >>> teacher = Sizes(10, 128, ((32, 8, 8), (64, 4, 4)))
    >>> pick_stage("at", Setting(student, teacher, labels=None), -1)
    ((32, 4, 4), (64, 4, 4))
    """
    student, teacher = stages_of(name, setting)
    place = len(student) // 2 if stage is None else stage
    if not -len(student) <= place < len(student):
        raise UserError(f"{name}.stage must be in [{-len(student)}, {len(student)}), got {place}")
    return student[place], teacher[place]
