"""What a distiller is: from a student's and a teacher's `Outputs` to a term of the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor, nn

from bnn_itrd.distillers.setting import Sizes
from bnn_itrd.models import Outputs, evaluation_mode, observe

__all__ = ["Distiller", "gather", "measure"]


def measure(model: nn.Module, input_shape: Sequence[int]) -> Sizes:
    """Returns the sizes of a network's `Outputs`, by a pass of two empty images (c, h, w) in evaluation mode.

    Where one of the stages is no map (n, c, h, w), it has none. Works on the meta device, without memory.
    """
    observed = observe(model)
    try:
        with torch.no_grad(), evaluation_mode(model):
            outputs = observed(torch.zeros(2, *input_shape, device=next(model.parameters()).device))
    finally:
        observed.remove()
    stages = tuple((int(m.shape[1]), int(m.shape[2]), int(m.shape[3])) for m in outputs.stages if m.ndim == 4)
    if len(stages) < len(outputs.stages):
        stages = ()
    return Sizes(int(outputs.logits.shape[1]), int(outputs.representation.shape[1]), stages)


class Distiller(nn.Module):
    """A term of the loss, with what it owns.

    It is called with (student outputs, teacher outputs, labels, sample indices) and gives a scalar, (). What it owns,
    parameters and buffers (a memory bank, say), joins the optimiser and the checkpoint. One with `preparation_epochs`
    has a phase in front of the training, at `preparation_lr` (None: the training's): there `prepare` alone is
    minimised, and the student takes part where `prepares_student` is set (else its outputs are None); `prepared` is
    called at its end. One with `only_prepares` adds no term to the training itself. `replicated` names buffers that are
    the same in all processes because each computes them from the global batch: they are not sent around at every step.
    One that `reads_labels` cannot be used where some images have none, or two (mixup, CutMix). One that `watches` is
    asked by `watch`, at the end of an epoch, for numbers about its last batch.
    """

    preparation_epochs = 0
    preparation_lr: float | None = None
    prepares_student = False
    only_prepares = False
    reads_labels = False
    watches = False
    replicated: tuple[str, ...] = ()

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        """Returns the term of a batch, ()."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(student, teacher, labels, indices)")

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        """Returns what is minimised in the phase before the training, ()."""
        raise NotImplementedError(f"{type(self).__name__} has no prepare(student, teacher, labels, indices)")

    def prepared(self) -> None:
        """Freezes what is not trained any more after the phase."""

    def watch(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns what metrics.csv tells of a batch, name -> (); both networks are in evaluation mode."""
        return {}


def gather(x: Tensor) -> Tensor:
    """Returns the rows of all processes, (n, d) -> (world * n, d), with gradients; x itself in a single process.

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
