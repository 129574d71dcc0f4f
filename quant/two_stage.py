"""Two-stage training: the state of a network that binarises less, in one that binarises more."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bnn_itrd.quant.layers import BinaryLayer

__all__ = ["load_stage"]

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
