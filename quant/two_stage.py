"""Loads the initial weights of a binary network, from the first of two training stages or from its teacher."""

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
    """Loads the state dict of training stage 1 into the network of stage 2; returns the sorted names it did not load.

    The two networks have the same layers with different schemes. All tensors but those of the binarisers must agree in
    name and shape. A binariser's tensor is loaded where both stages have it. Where only the network has it, it gets its
    initial value, which some binarisers compute from the loaded weight. Where only the state has it, it is ignored.
    Every buffer ``progress`` stays as it is, because each stage anneals from the start.
    Raises ValueError, before anything changes, on missing or unknown names and on shapes that differ.

    >>> from bnn_itrd.quant import BinaryLinear
    >>> load_stage(BinaryLinear(2, 2, scheme="xnor"), BinaryLinear(2, 2, scheme="real").state_dict())
    ['activation_binarizer.progress', 'weight_binarizer.progress']
    """
    layers = {path: m for path, m in model.named_modules() if isinstance(m, BinaryLayer)}
    prefixes = tuple(f"{path}.{name}.".lstrip(".") for path in layers for name in _OWN)
    ours = model.state_dict()
    missing = sorted(name for name in ours if name not in state)
    unknown = sorted(name for name in state if name not in ours)
    for kind, names in (("lacks", missing), ("has unknown names", unknown)):
        wrong = [name for name in names if not name.startswith(prefixes)]
        if wrong:
            raise ValueError(
                f"the state dict {kind} {_names(wrong)}: both stages must have the same layers, and only their schemes "
                "may differ"
            )
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
    """Copies a full-precision teacher's weights into a new binary network; returns the sorted names it did not copy.

    state: the teacher's state dict. Every tensor is copied whose name and shape agree. The weights of binary layers are
    scaled to the standard deviation of the network's initial weights. Signs and relative magnitudes stay the teacher's,
    and a step of a given learning rate changes the weights as much as it would change initial ones. The result leaves
    out the tensors of binarisers, which no teacher has.
    Raises ValueError, before anything changes, where the teacher has fewer than half of the binary layers' weights. It
    does so too where one of its weights is not finite, or the same number everywhere, because then no sign means
    anything.

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
            "use a teacher whose layers have the student's names and shapes"
        )
    for name in binary & taken.keys():
        value = taken[name].to(ours[name].dtype)
        width = value.std()
        # Rounding may give equal numbers a standard deviation slightly above 0.
        if not value.is_meta and not 1e-5 * value.abs().max() < width < math.inf:
            raise ValueError(f"the teacher's {name} is not finite, or the same number everywhere: use another teacher")
        taken[name] = value * (ours[name].std() / width)
    model.load_state_dict(taken, strict=False)
    for path in layers:
        layer = model.get_submodule(path)
        assert isinstance(layer, BinaryLayer)
        layer.weight_binarizer.initialise(layer.weight)
    return sorted(name for name in ours if name not in taken and not name.startswith(prefixes))
