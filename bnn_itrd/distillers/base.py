"""What a distiller is: from a student's and a teacher's `Outputs` to a term of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from bnn_itrd.errors import UserError
from bnn_itrd.models import Outputs, observe

__all__ = ["Distiller", "Setting", "Sizes", "gather", "measure", "pick", "stages_of"]

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Sizes:
    """Of a network's `Outputs`, without the batch: stages are (c, h, w)."""

    logits: int
    representation: int
    stages: tuple[Shape, ...]


@dataclass(frozen=True)
class Setting:
    """What a distiller may know when it is made. labels: int64 (n,), of all training images in their order,
    `data.UNLABELLED` for those that have none."""

    student: Sizes
    teacher: Sizes
    labels: Tensor


def measure(model: nn.Module, input_shape: Sequence[int]) -> Sizes:
    """What a network's `Outputs` hold, from a pass of two empty images (c, h, w) in evaluation mode.

    Where one of the stages is no map (n, c, h, w), it has none. Works on the meta device, without memory.
    """
    observed = observe(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            outputs = observed(torch.zeros(2, *input_shape, device=next(model.parameters()).device))
    finally:
        model.train(was_training)
        observed.remove()
    stages = tuple((int(m.shape[1]), int(m.shape[2]), int(m.shape[3])) for m in outputs.stages if m.ndim == 4)
    if len(stages) < len(outputs.stages):
        stages = ()
    return Sizes(int(outputs.logits.shape[1]), int(outputs.representation.shape[1]), stages)


class Distiller(nn.Module):
    """Called with (student outputs, teacher outputs, labels, sample indices); gives the weighted term, ().

    What it owns, parameters and buffers (a memory bank, say), joins the optimiser and the checkpoint. One with
    `preparation_epochs` has a phase in front of the training: there `prepare` alone is minimised, and the student
    takes part where `prepares_student` is set (else its outputs are None); `prepared` is called at its end. One with
    `only_prepares` adds no term to the training itself. `replicated` names buffers that are the same in all processes
    because each computes them from the global batch: they are not sent around at every step. One that `reads_labels`
    cannot be used where some images have none.
    """

    preparation_epochs = 0
    prepares_student = False
    only_prepares = False
    reads_labels = False
    replicated: tuple[str, ...] = ()

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        raise NotImplementedError

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        raise NotImplementedError

    def prepared(self) -> None:
        """Freezes what is not trained any more."""


def gather(x: Tensor) -> Tensor:
    """Rows of all processes, (n, d) -> (world * n, d), with gradients; x itself in a single process.

    Every process then computes the same global loss; the backward pass sums their gradients for a row, and the mean
    over processes that data-parallel training takes makes that the gradient of one process with the global batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    if torch.distributed.get_world_size() == 1:
        return x
    if not x.is_floating_point():
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(x.contiguous())))


def stages_of(name: str, setting: Setting, *, least: int = 1) -> tuple[Sequence[Shape], Sequence[Shape]]:
    """The stages of student and teacher, as many of either. Raises UserError where they do not fit."""
    student, teacher = setting.student.stages, setting.teacher.stages
    for who, stages in (("student", student), ("teacher", teacher)):
        if len(stages) < least:
            raise UserError(
                f"{name} compares the maps of stages, and the {who} shows {len(stages)} of them: give the "
                "network an attribute `stages`, a tuple of the names of its submodules, or use a distiller of the "
                "representation"
            )
    if len(student) != len(teacher):
        raise UserError(
            f"{name} compares the maps of stages, and the student has {len(student)} of them, the teacher "
            f"{len(teacher)}: name as many of either in their attribute `stages`"
        )
    return student, teacher


def pick(name: str, setting: Setting, stage: int | None) -> tuple[int, Shape, Shape]:
    """(place, the student's shape, the teacher's) of one stage; None is the middle one. Raises UserError."""
    student, teacher = stages_of(name, setting)
    place = len(student) // 2 if stage is None else stage
    if not -len(student) <= place < len(student):
        raise UserError(f"{name}.stage must be in [{-len(student)}, {len(student)}), got {place}")
    return place, student[place], teacher[place]
