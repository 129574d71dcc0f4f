"""Hashes and values that a checkpoint stores of its network and data, so that a resumed run can recognise them."""

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
    """Returns the SHA-256, as a hexadecimal text, of the names and values in a network's state dict."""
    return tensors_hash(model.state_dict())


def teacher_hash(teacher: nn.Module, data: ImageData) -> str:
    """Returns the SHA-256, as a hexadecimal text, of a teacher's state dict and of how its images are renormalised.

    The second part is left out if the teacher was trained with the mean and std of `data`.
    """
    renormalised = renormalisation(teacher, data)
    state = teacher.state_dict()
    if renormalised is not None:
        state |= dict(zip(("renormalise.scale", "renormalise.offset"), renormalised, strict=True))
    return tensors_hash(state)


def layers_hash(model: nn.Module) -> str:
    """Returns the SHA-256, as a hexadecimal text, of a network's architecture as ``repr(model)`` shows it.

    So it covers the layers' sizes, schemes and padding, but no weights. Since the repr of a layer does not
    distinguish a user's own binarisers, the repr of a scheme that has some is hashed too.
    """
    schemes = [m.scheme for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    own = {repr(s) for s in schemes if not all(isinstance(getattr(s, part), str) for part in PARTS)}
    return hashlib.sha256((repr(model) + "".join(sorted(own))).encode()).hexdigest()


def data_identity(data: ImageData) -> dict[str, Any]:
    """Returns what a checkpoint records of the data: classes, image shape, number of training images, mean, std."""
    return {
        "classes": list(data.classes),
        "input_shape": list(data.input_shape),
        "train_images": len(data.train),
        "mean": list(data.mean),
        "std": list(data.std),
    }
