"""What a checkpoint keeps of its network and its data, to tell others from them."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from bnn_itrd.data.splits import ImageData

__all__ = ["data_identity", "weights_hash"]


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over a network's state dict, names and values, in hex: the same weights wherever they lie."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def data_identity(data: ImageData) -> dict[str, Any]:
    """What a checkpoint keeps of its data: enough to tell other images, and to normalise as the network learned it."""
    return {
        "classes": list(data.classes),
        "input_shape": list(data.input_shape),
        "train_images": len(data.train),
        "mean": list(data.mean),
        "std": list(data.std),
    }
