"""Gives access to the logits, the classifier's input and the maps inside any network, for distillation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear

__all__ = ["Observed", "Outputs", "evaluation_mode", "find_head", "observe"]


_STRIDED = (nn.Conv2d, BinaryConv2d, nn.MaxPool2d, nn.AvgPool2d)


class Outputs(NamedTuple):
    """What a network computes for a batch: the logits (n, k), and the features that distillation compares.

    representation: the classifier's input, (n, d); stages: one map (n, c_i, h_i, w_i) for each stage of the network.
    """

    logits: Tensor
    representation: Tensor
    stages: tuple[Tensor, ...]


def find_head(model: nn.Module) -> str:
    """Returns the name of a network's classifier: ``model.head`` where that is a string, else the last linear layer.

    Without linear layers (in a fully convolutional network) it is the last convolution, if that is 1x1. Raises
    ValueError where there is no classifier.

    >>> find_head(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    '2'
    """
    declared = getattr(model, "head", None)
    if isinstance(declared, str):
        return declared
    linears = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, BinaryLinear))]
    if linears:
        return linears[-1]
    convolutions = [(name, m) for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, BinaryConv2d))]
    if convolutions and set(convolutions[-1][1].kernel_size) == {1}:
        return convolutions[-1][0]
    raise ValueError(
        f"{type(model).__name__} has no linear layer, and no 1x1 convolution at its end, to take for the classifier: "
        "name it with head=..., or in an attribute `head` of the network"
    )


def _find_stages(model: nn.Module) -> tuple[str, ...]:
    declared = getattr(model, "stages", None)
    if isinstance(declared, tuple) and all(isinstance(s, str) for s in declared):
        return declared
    names = [name for name, _ in model.named_children()]
    layers = tuple(n for n in names if n.startswith("layer") and n[5:].isdigit())
    features = getattr(model, "features", None)
    if layers or not isinstance(features, nn.Sequential):
        return layers
    parts = list(features.named_children())
    ends = [a for (a, _), (_, b) in pairwise(parts) if _reduces(b)]
    if parts and not _reduces(parts[-1][1]):
        ends.append(parts[-1][0])
    return tuple(f"features.{name}" for name in ends)


def _reduces(module: nn.Module) -> bool:
    """Returns whether a module contains a convolution or pool with a stride."""
    strides = [getattr(m, "stride", 1) for m in module.modules() if isinstance(m, _STRIDED)]
    return any(max(s) > 1 if isinstance(s, tuple) else s > 1 for s in strides)


class Observed(nn.Module):
    """Wraps a network so that a call returns `Outputs` instead of the logits; `observe` makes it.

    `model` is the network itself, which gets forward hooks until `remove`. So it works for any network: this package's,
    torchvision's or timm's. It compiles with fullgraph=True. A copy (deepcopy, torch.save) of it or of the observed
    network is independent of the original.
    head: the classifier's name in the network; stages: the names of the modules whose outputs are the maps.
    """

    def __init__(self, model: nn.Module, head: str, stages: Sequence[str]) -> None:
        super().__init__()
        modules = dict(model.named_modules())
        for name in (head, *stages):
            if name not in modules:
                raise ValueError(f"{type(model).__name__} has no submodule {name!r}: named_modules() lists the names")
        self.model = model
        self.head_name, self.stage_names = head, tuple(stages)
        self.pools = isinstance(modules[head], (nn.Conv2d, BinaryConv2d))
        # What the hooks have seen in this call; None outside of one. So a direct call of the network, as an evaluation
        # makes, leaves nothing here: no tensors that stay in memory, and no change for which code is compiled again.
        self._seen: dict[str, Tensor] | None = None
        self._handles = [modules[head].register_forward_pre_hook(self._keep_input)]
        for name in self.stage_names:
            self._handles.append(modules[name].register_forward_hook(partial(self._keep_output, name)))

    def _keep_input(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._seen is not None:
            self._seen["representation"] = args[0]

    def _keep_output(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        if self._seen is not None:
            self._seen[name] = output

    def remove(self) -> None:
        """Removes the hooks from the network."""
        for handle in self._handles:
            handle.remove()

    def forward(self, x: Tensor) -> Outputs:
        seen: dict[str, Tensor] = {}
        before, self._seen = self._seen, seen
        try:
            logits = self.model(x)
        finally:
            self._seen = before  # None, unless the network calls this object again
        if "representation" not in seen:
            raise RuntimeError(f"the classifier {self.head_name!r} was not called in the forward pass: choose head=...")
        for name in self.stage_names:
            if not isinstance(seen.get(name), Tensor):
                did = "returned no tensor" if name in seen else "was not called in the forward pass"
                raise RuntimeError(f"the stage {name!r} {did}: choose others with stages=[...]")
        representation = seen["representation"]
        if self.pools and representation.ndim == 4:
            # The mean over positions may be taken before the 1x1 convolution, which acts on each position alone.
            representation = representation.mean((2, 3))
        representation = torch.flatten(representation, 1)
        return Outputs(logits, representation, tuple(seen[name] for name in self.stage_names))


def observe(model: nn.Module, *, head: str | None = None, stages: Sequence[str] | None = None) -> Observed:
    """Returns the network, wrapped so that it gives its logits, its representation and its maps as `Outputs`.

    head: the name of the classifier, whose input is the representation; by default that of `find_head`. The input of a
    1x1 convolution is averaged over its positions.
    stages: the names of the submodules whose outputs are the maps. The default is ``model.stages``. Without it, these
    are the children called layer1, layer2, ... (torchvision's and timm's residual networks). Without them, in a
    Sequential called features, they are each child in front of one with a stride, and the last child (torchvision's
    VGG, MobileNet, DenseNet). Raises ValueError on a name that does not exist, or where no classifier is found.

    >>> from bnn_itrd.models import resnet8
    >>> outputs = observe(resnet8(10))(torch.zeros(2, 3, 32, 32))
    >>> outputs.representation.shape, [tuple(m.shape) for m in outputs.stages]
    (torch.Size([2, 64]), [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)])
    """
    return Observed(
        model,
        find_head(model) if head is None else head,
        _find_stages(model) if stages is None else tuple(stages),
    )


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a network in evaluation mode inside a ``with`` block, and then restores the mode of each of its modules.

    A plain ``model.train()`` at the end would also change modules that were in evaluation mode, such as a frozen
    BatchNorm.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
    >>> with evaluation_mode(network):
    ...     network.training
    False
    >>> [m.training for m in network.modules()]
    [True, True, False]
    """
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
