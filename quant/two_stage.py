"""What a network begins with: the state of a first stage that binarises less, or the weights of its teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bnn_itrd.quant.layers import BinaryLayer

__all__ = ["load_stage", "take_weights"]

_OWN = ("weight_binarizer", "activation_binarizer", "regularizer")


def _names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


@torch.no_grad()
def load_stage(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Loads the state dict of one stage into the network of the next; the names that keep their fresh values, sorted.

    Both have the same layers under different schemes. Latent weights and all that is no binariser's must agree in
    names and shapes. A binariser's state is taken where both stages have it, fresh where only the network has it
    (and made from the loaded weight where it starts from that), dropped where only the state has it. Every
    ``progress`` stays as it is: each stage anneals anew.
    Raises ValueError, before anything changes, on names missing, unknown or of other shapes.
    """
    layers = {path: m for path, m in model.named_modules() if isinstance(m, BinaryLayer)}
    prefixes = tuple(f"{path}.{name}.".lstrip(".") for path in layers for name in _OWN)
    ours = model.state_dict()
    missing = sorted(name for name in ours if name not in state)
    unknown = sorted(name for name in state if name not in ours)
    for kind, names in (("lacks", missing), ("has, and the network not,", unknown)):
        wrong = [name for name in names if not name.startswith(prefixes)]
        if wrong:
            raise ValueError(f"state must be that of the same layers; it {kind} {_names(wrong)}")
    taken = {n: v for n, v in state.items() if n in ours and not (n.startswith(prefixes) and n.endswith("progress"))}
    for name, value in taken.items():
        if value.shape != ours[name].shape:
            raise ValueError(f"{name} must have shape {tuple(ours[name].shape)}, got {tuple(value.shape)}")
    model.load_state_dict(taken, strict=False)
    for path, layer in layers.items():
        start = f"{path}.weight_binarizer.".lstrip(".")
        loaded = {name: taken[name] for name in taken if name.startswith(start)}
        layer.weight_binarizer.initialise(layer.weight)
        layer.weight_binarizer.load_state_dict({n.removeprefix(start): v for n, v in loaded.items()}, strict=False)
    return sorted(name for name in ours if name not in taken)


@torch.no_grad()
def take_weights(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Gives a fresh network the weights of a full-precision one of the same definition; returns the names not found.

    state: the state dict of that network, a teacher. Every tensor is taken whose name and shape are in both. The
    weights of binary layers are scaled to the standard deviation that they began with: their signs and the order of
    their sizes are the teacher's, and a step of a given learning rate turns them as it would turn fresh ones.
    Raises ValueError, before anything changes, where less than half of the weights of the binary layers are there, and
    where one of the teacher's is not finite, or one number alone: that has no signs to begin with.

    >>> from bnn_itrd.models import resnet8
    >>> student = resnet8(10, binary="recu")
    >>> take_weights(student, resnet8(10).state_dict())[:2]
    ['norm.bias', 'norm.num_batches_tracked']
    """
    ours = model.state_dict()
    layers = [path for path, m in model.named_modules() if isinstance(m, BinaryLayer)]
    binary = {f"{path}.weight".lstrip(".") for path in layers}
    prefixes = tuple(f"{path}.{name}.".lstrip(".") for path in layers for name in _OWN)
    taken = {n: v for n, v in state.items() if n in ours and v.shape == ours[n].shape}
    there, all_of_them = (sum(ours[name].numel() for name in names) for names in (binary & taken.keys(), binary))
    if 2 * there < all_of_them:
        raise ValueError(
            f"the teacher has {there:,} of the {all_of_them:,} weights of the binary layers, by name and shape: "
            "it must be of the same definition"
        )
    for name in binary & taken.keys():
        value = taken[name].to(ours[name].dtype)
        width = value.std()
        # What rounding leaves of the spread of equal numbers is none.
        if not value.is_meta and not 1e-5 * value.abs().max() < width < math.inf:
            raise ValueError(f"the teacher's {name} is not finite, or the same number everywhere: give another teacher")
        taken[name] = value * (ours[name].std() / width)
    model.load_state_dict(taken, strict=False)
    for path in layers:
        layer = model.get_submodule(path)
        assert isinstance(layer, BinaryLayer)
        layer.weight_binarizer.initialise(layer.weight)
    return sorted(name for name in ours if name not in taken and not name.startswith(prefixes))
