"""What a batch is, and how batches are read where the images are not in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bnn_itrd.errors import UserError

__all__ = ["UNLABELLED", "Batch", "Sample", "read_batches"]

# Images float32 normalised (n, c, h, w), labels int64 (n,), sample indices int64 (n,).
Batch = tuple[Tensor, Tensor, Tensor]

# One image uint8 (c, h, w), its label, its index.
Sample = tuple[Tensor, int, int]

# The label of a training image that has none.
UNLABELLED = -1


def read_batches(
    reader: Dataset[Sample], order: Sequence[int], *, batch_size: int, workers: int, device: torch.device
) -> Iterator[Batch]:
    """Yields the samples of `reader` in this order, as batches on the device; the images are uint8 still.

    workers: processes that read ahead; 0 reads in this one. Raises UserError, with the message of the reader's own,
    where a sample cannot be read.
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
        # A worker process sends its traceback along; the message is its last line.
        raise UserError(str(error).strip().splitlines()[-1].rpartition("UserError: ")[2]) from error
