"""A hash of tensors, by which a checkpoint recognises weights and images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["tensors_hash"]


def tensors_hash(named: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256, in hex, of the names and values of tensors in their order; they may be on any device.

    Their shapes and number types are not part of it.

    >>> tensors_hash({"bias": torch.zeros(2)}) == tensors_hash({"bias": torch.tensor([0.0, 1.0])})
    False
    """
    digest = hashlib.sha256()
    for name, tensor in named.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
