"""The base class of distillers, which compute a term of the loss from a student's and a teacher's `Outputs`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor, nn

from bnn_itrd.distillers.setting import Sizes
from bnn_itrd.models import Outputs, evaluation_mode, observe

__all__ = ["Distiller", "gather", "measure"]


def measure(model: nn.Module, input_shape: Sequence[int]) -> Sizes:
    """Returns the sizes of a network's `Outputs` for images (c, h, w), from a forward of two zero images.

    The forward is in evaluation mode, and works on the meta device, where it needs no memory. Where the output of a
    stage is no map (n, c, h, w), `stages` is empty.

    >>> from bnn_itrd.models import resnet8
    >>> measure(resnet8(10), (3, 32, 32))
    Sizes(logits=10, representation=64, stages=((16, 32, 32), (32, 16, 16), (64, 8, 8)))
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
    """A term of the loss, with its own parameters and buffers.

    It is called with (student outputs, teacher outputs, labels, sample indices) and returns a scalar, (). Its
    parameters are trained with the student's, and the checkpoint holds its parameters and buffers (a memory bank, for
    instance).

    preparation_epochs: epochs of a preparation before the training, in which only `prepare` is minimised; `prepared` is
    called at its end; preparation_lr: the learning rate there, by default the training's; prepares_student: whether the
    student is trained in the preparation (else its outputs are None there); only_prepares: whether the term is left out
    of the training itself; reads_labels: whether it needs one label per image, so that it cannot be used with
    unlabelled images, mixup or CutMix; watches: whether `watch` is called at the end of an epoch; replicated: names of
    buffers that each process computes from the global batch, so that they need no synchronisation.
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
        """Returns the loss of the preparation before the training, ()."""
        raise NotImplementedError(f"{type(self).__name__} has no prepare(student, teacher, labels, indices)")

    def prepared(self) -> None:
        """Freezes parameters that are not trained after the preparation."""

    def watch(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns columns of metrics.csv for a batch, name -> (); both networks are in evaluation mode."""
        return {}


def gather(x: Tensor) -> Tensor:
    """Returns the rows of all processes, (n, d) -> (world * n, d), with gradients; x itself in a single process.

    Every process then computes the same global loss. The backward pass sums the processes' gradients of a row, and
    data-parallel training averages over processes, which gives the gradient of one process with the global batch.
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
