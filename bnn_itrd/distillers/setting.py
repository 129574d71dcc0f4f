"""`Setting`, the sizes of both networks' outputs and the labels, from which distillers are made; loads no torch."""

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
    """The sizes of a network's outputs, without the batch axis.

    `logits` is the number of classes, `representation` the number of features before the classifier, and `stages` the
    (c, h, w) of each stage's output.
    """

    logits: int
    representation: int
    stages: tuple[Shape, ...]


@dataclass(frozen=True)
class Setting:
    """What a distiller may know when it is made: the sizes of both networks' outputs, and the labels.

    `labels` are those of all training images in the data's order, int64 (n,), with `data.UNLABELLED` for an image
    without a label. It is empty if the labels are not known.
    """

    student: Sizes
    teacher: Sizes
    labels: Tensor


def stages_of(name: str, setting: Setting, *, least: int = 1) -> tuple[Sequence[Shape], Sequence[Shape]]:
    """Returns the (c, h, w) of each of the student's and of the teacher's stages, two sequences of the same length.

    `name` is the method's name, for messages. Raises UserError if a network has fewer than `least` stages, or if the
    two networks have different numbers of stages.
    """
    student, teacher = setting.student.stages, setting.teacher.stages
    for who, stages in (("student", student), ("teacher", teacher)):
        if len(stages) < least:
            raise UserError(
                f"{name} compares the outputs (n, c, h, w) of {least} or more stages, but the {who} has {len(stages)} "
                "of them: give the network an attribute `stages`, a tuple of names of its submodules, or use a "
                "distiller that compares representations (itrd, pkt ...)"
            )
    if len(student) != len(teacher):
        raise UserError(
            f"{name} compares the networks stage by stage, but the student has {len(student)} stages and the teacher "
            f"{len(teacher)}: name equally many in the attribute `stages` of both networks"
        )
    return student, teacher


def pick_stage(name: str, setting: Setting, stage: int | None) -> tuple[Shape, Shape]:
    """Returns the (c, h, w) of one stage's output in the student and in the teacher.

    `stage` counts from 0, or from the end with -1; None is the middle stage. `name` is the method's name, for messages.
    Raises UserError if there is no such stage.

    >>> student = Sizes(10, 64, ((16, 8, 8), (32, 4, 4)))
    >>> teacher = Sizes(10, 128, ((32, 8, 8), (64, 4, 4)))
    >>> pick_stage("at", Setting(student, teacher, labels=None), -1)
    ((32, 4, 4), (64, 4, 4))
    """
    student, teacher = stages_of(name, setting)
    place = len(student) // 2 if stage is None else stage
    if not -len(student) <= place < len(student):
        raise UserError(
            f"{name}.stage is {place}, but the networks have {len(student)} stages: give a number from "
            f"{-len(student)} to {len(student) - 1}"
        )
    return student[place], teacher[place]
