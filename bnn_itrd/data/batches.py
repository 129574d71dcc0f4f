"""The types of a batch and a sample, and a function that reads batches of images that are not in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bnn_itrd.errors import UserError

__all__ = ["UNLABELLED", "Batch", "Sample", "read_batches"]

# A batch: normalised float32 images (n, c, h, w), int64 labels (n,), int64 indices of the images in their split (n,).
Batch = tuple[Tensor, Tensor, Tensor]

# A sample: a uint8 image (c, h, w), its label, its index.
Sample = tuple[Tensor, int, int]

# The label that a training image without a label has in a batch.
UNLABELLED = -1


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
