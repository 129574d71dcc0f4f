"""The identity of a network and its data in a checkpoint, by which a resumed run recognises them."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from bnn_itrd.data.normalisation import renormalisation
from bnn_itrd.data.splits import ImageData
from bnn_itrd.hashes import tensors_hash
from bnn_itrd.quant import BinaryConv2d, BinaryLinear
from bnn_itrd.quant.options import PARTS

__all__ = ["data_identity", "layers_hash", "teacher_hash", "weights_hash"]


def weights_hash(model: nn.Module) -> str:
    """Returns the SHA-256, in hex, of the names and values of a network's state dict."""
    return tensors_hash(model.state_dict())


def teacher_hash(teacher: nn.Module, data: ImageData) -> str:
    """Returns the hash of a teacher's state dict, with its renormalisation if its training had another mean or std."""
    renormalised = renormalisation(teacher, data)
    state = teacher.state_dict()
    if renormalised is not None:
        state |= dict(zip(("renormalise.scale", "renormalise.offset"), renormalised, strict=True))
    return tensors_hash(state)


def layers_hash(model: nn.Module) -> str:
    """Returns the SHA-256, in hex, of a network's printed layers: their sizes, schemes and padding, not the weights.

    The text of a scheme is added if it has a user's own binarisers, which a layer's text does not distinguish.
    """
    schemes = [m.scheme for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    own = {repr(s) for s in schemes if not all(isinstance(getattr(s, part), str) for part in PARTS)}
    return hashlib.sha256((repr(model) + "".join(sorted(own))).encode()).hexdigest()


def data_identity(data: ImageData) -> dict[str, Any]:
    """Returns what a checkpoint records of its data: values to recognise it by, and its normalisation."""
    return {
        "classes": list(data.classes),
        "input_shape": list(data.input_shape),
        "train_images": len(data.train),
        "mean": list(data.mean),
        "std": list(data.std),
    }
