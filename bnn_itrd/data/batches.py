"""The types of a batch and a sample, and a function that reads batches of images that are not in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bnn_itrd.errors import UserError

__all__ = ["UNLABELLED", "Batch", "Sample", "read_batches", "steps_together"]

# A batch: normalised float32 images (n, c, h, w), int64 labels (n,), int64 indices of the images in their split (n,).
Batch = tuple[Tensor, Tensor, Tensor]

# A sample: a uint8 image (c, h, w), its label, its index.
Sample = tuple[Tensor, int, int]

# The label that a training image without a label has in a batch.
UNLABELLED = -1

# On a GPU, the images of so many steps at the most are made at once, if they have so many values at the most (64 MiB).
_MOST_STEPS, _MOST_VALUES = 16, 2**24


def steps_together(device: torch.device, values: int) -> int:
    """Returns of how many steps the images are augmented at once; values: how many numbers a step's images have.

    On a GPU it is several, because the CPU takes longer to launch the many small operations of an augmentation than the
    GPU to run them (TrivialAugment: 3.4 ms for each step of 256 CIFAR images, while the kernels of a ResNet-18's step
    took 6 ms). On a CPU it is one. The images are the same.

    >>> steps_together(torch.device("cpu"), 1000), steps_together(torch.device("cuda"), 256 * 3 * 32 * 32)
    (1, 16)
    """
    return 1 if device.type == "cpu" else max(1, min(_MOST_STEPS, _MOST_VALUES // values))


def read_batches(
    reader: Dataset[Sample], order: Sequence[int], *, batch_size: int, workers: int, device: torch.device
) -> Iterator[Batch]:
    """Yields batches of the samples of `reader` on the device, with uint8 images (not normalised yet).

    order: the indices of the samples, in the order in which they are read. workers: number of processes that read
    ahead; 0: this process reads. Raises UserError, with the message of `reader`, if a sample cannot be read.
    """
    loader = DataLoader(
        reader,
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    try:
        for images, labels, index in loader:
            yield tuple(t.to(device, non_blocking=True) for t in (images, labels, index))
    except UserError as error:
        # An error in a worker process arrives with a whole traceback as its text, whose last line is the message.
        raise UserError(str(error).strip().splitlines()[-1].rpartition("UserError: ")[2]) from error
