"""The form of a batch, and a reader of batches for images that are not in memory."""

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
    """Yields the samples of `reader` in the given order, as batches on the device; their images are uint8.

    workers: number of processes that read ahead; 0: this process reads. Raises UserError with the reader's message if a
    sample cannot be read.
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
        # A worker process sends a whole traceback; the message is its last line.
        raise UserError(str(error).strip().splitlines()[-1].rpartition("UserError: ")[2]) from error
