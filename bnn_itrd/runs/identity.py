"""What a checkpoint keeps of its network and its data, to tell others from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bnn_itrd.data.normalisation import renormalisation
from bnn_itrd.data.splits import ImageData
from bnn_itrd.quant import BinaryConv2d, BinaryLinear
from bnn_itrd.quant.options import PARTS

__all__ = ["data_identity", "layers_hash", "teacher_hash", "weights_hash"]


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over a network's state dict, names and values, in hex: the same weights wherever they lie."""
    return _hash(model.state_dict())


def teacher_hash(teacher: nn.Module, data: ImageData) -> str:
    """`weights_hash` of a teacher as it sees the data: under other statistics than its own it is another teacher."""
    renormalised = renormalisation(teacher, data)
    state = teacher.state_dict()
    if renormalised is not None:
        state |= dict(zip(("renormalise.scale", "renormalise.offset"), renormalised, strict=True))
    return _hash(state)


def _hash(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def layers_hash(model: nn.Module) -> str:
    """SHA-256 over a network's layers as it prints them, in hex: sizes, schemes, padding, not the weights.

    Binarisers of the user's own, which the layers' text does not tell apart, count with their scheme's text.
    """
    schemes = [m.scheme for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    own = {repr(s) for s in schemes if not all(isinstance(getattr(s, part), str) for part in PARTS)}
    return hashlib.sha256((repr(model) + "".join(sorted(own))).encode()).hexdigest()


def data_identity(data: ImageData) -> dict[str, Any]:
    """What a checkpoint keeps of its data: enough to tell other images, and to normalise as the network learned it."""
    return {
        "classes": list(data.classes),
        "input_shape": list(data.input_shape),
        "train_images": len(data.train),
        "mean": list(data.mean),
        "std": list(data.std),
    }
