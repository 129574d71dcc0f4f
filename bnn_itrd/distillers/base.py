"""`Distiller`, the base class of distillation losses, which compare a student's outputs with its teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor, nn

from bnn_itrd.distillers.setting import Sizes
from bnn_itrd.models import Outputs, evaluation_mode, observe

__all__ = ["Distiller", "gather", "measure"]


def measure(model: nn.Module, input_shape: Sequence[int]) -> Sizes:
    """Returns the sizes of a network's logits, representation and stages, measured in one forward pass.

    `input_shape` is the (c, h, w) of an image. The pass takes two images of zeros and runs in evaluation mode. It also
    works on the meta device, where it needs no memory. `stages` of the result is empty if a stage's output is not of
    shape (n, c, h, w).

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
    """A distillation loss: a module that computes one term of the loss from the student's and the teacher's outputs.

    A subclass defines `forward`, which returns a scalar, (). The distiller's parameters are trained together with the
    student's. A checkpoint saves its parameters and buffers, for instance a memory bank of features.

    A distiller may ask for a preparation: epochs before the training, in which only the loss that `prepare` returns is
    minimised. `prepared` is called after the last of them.

    Attributes:
        preparation_epochs: number of epochs of the preparation; 0 means that there is none
        preparation_lr: learning rate in the preparation; None means the training's
        prepares_student: whether the preparation trains the student; if not, `prepare` gets None for its outputs
        only_prepares: whether `forward` is left out of the training's loss, so that only the preparation counts
        reads_labels: whether every image needs exactly one label, which rules out unlabelled images, mixup and CutMix
        watches: whether `watch` is called at the end of each epoch
        replicated: names of buffers that are equal in all processes, because each computes them from the global batch
    """

    preparation_epochs = 0
    preparation_lr: float | None = None
    prepares_student = False
    only_prepares = False
    reads_labels = False
    watches = False
    replicated: tuple[str, ...] = ()

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        """Returns this term of a batch's loss, (); labels: (n,); indices: (n,) places of the images in the data set."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(student, teacher, labels, indices)")

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        """Returns the loss of a batch, (), in the preparation, which means epochs before the training.

        `student` is None unless `prepares_student` is set; labels and indices are as in `forward`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no prepare(student, teacher, labels, indices)")

    def prepared(self) -> None:
        """Called once between the preparation (see `prepare`) and the training; by default it does nothing.

        A subclass freezes here the parameters that only the preparation trains.
        """

    def watch(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns statistics of a batch for metrics.csv, column -> scalar; both networks are in evaluation mode."""
        return {}


def gather(x: Tensor) -> Tensor:
    """Joins the rows of x from all processes, with gradients; (n, d) -> (processes * n, d). One process gets x itself.

    Every process gets the same rows, and so computes the same loss from them. Each may run its backward pass: it adds
    up the gradients that all processes have for a row, and DistributedDataParallel then divides by their number. So the
    parameters get the gradients that one process would compute from the batches of all processes together.
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
