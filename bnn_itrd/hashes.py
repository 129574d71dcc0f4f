"""A hash of tensors, which checkpoints store to recognise the same weights or images later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["tensors_hash"]


def tensors_hash(named: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256, as a hexadecimal text, of named tensors: of their names and values, in the dict's order.

    The tensors may be on any device. Two tensors with the same bytes but other shapes or dtypes give the same hash.

    >>> tensors_hash({"bias": torch.zeros(2)}) == tensors_hash({"bias": torch.tensor([0.0, 1.0])})
    False
    """
    digest = hashlib.sha256()
    for name, tensor in named.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
