"""Helpers that prepare a network for the export.

They copy it, find the logits in what it returns, and find the module in which an error arose.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.models import Observed

__all__ = ["ModuleStack", "copy_for_export", "logits_of", "unwrap"]

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the network inside the wrapper of `observe`, ``torch.compile`` or data-parallel training."""
    while True:
        if isinstance(model, Observed):
            model = model.model
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _is_torchs_own(hook: Any) -> bool:
    """Returns whether a hook is defined in ``torch.nn.utils``.

    Pruning and the old weight_norm compute weights in such hooks, so a copy of the network needs them.
    """
    module = getattr(hook, "__module__", None) or type(hook).__module__
    return str(module).startswith("torch.nn.utils.")


def copy_for_export(model: nn.Module) -> nn.Module:
    """Returns a copy of the network for exporting: in evaluation mode, on the CPU, in float32, without gradients.

    Hooks that users registered are left out of the copy. `model` itself is not changed. Raises ExportError if the
    network cannot be copied.
    """
    model = unwrap(model)
    # Hooks are not copied because they may hold objects that cannot be copied, such as tensors with autograd history.
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name in _HOOKS:
            hooks = getattr(module, name, None)
            if isinstance(hooks, dict):
                kept = {k: h for k, h in hooks.items() if _is_torchs_own(h)}
                memo[id(hooks)] = OrderedDict(kept)
    try:
        network = copy.deepcopy(model, memo)
    except Exception as error:
        raise ExportError(f"{type(model).__name__} cannot be copied for the export: {error}") from error
    return network.cpu().float().eval().requires_grad_(False)


def _tensors(output: Any, place: str = "") -> dict[str, Tensor]:
    """Returns the tensors in a network's output, with the index expression of each, such as ``['out'][0]``, as key."""
    if isinstance(output, Tensor):
        return {place: output}
    entries: list[tuple[Any, Any]] = []
    if isinstance(output, Mapping):
        entries = list(output.items())
    elif isinstance(output, (tuple, list)):
        entries = list(enumerate(output))
    return {k: t for key, value in entries for k, t in _tensors(value, f"{place}[{key!r}]").items()}


def logits_of(output: Any) -> Tensor:
    """Returns the logits: the network's output itself, or the only tensor in an output that is a tuple, list or dict.

    Raises ExportError if there is no tensor or more than one, because an exported file has only one output.
    """
    found = _tensors(output)
    if not found:
        raise ExportError(
            f"the network returns {type(output).__name__}, with no tensor to take for logits: let forward return the "
            "logits as a tensor"
        )
    if len(found) > 1:
        shapes = ", ".join(f"output{place} {tuple(tensor.shape)}" for place, tensor in found.items())
        first = next(iter(found))
        raise ExportError(
            f"the network returns {len(found)} tensors ({shapes}), and a file has one output, the logits: let forward "
            f"return the logits alone in evaluation mode, or export a module around the network whose forward returns "
            f"one of them, such as self.network(x){first}"
        )
    return next(iter(found.values()))


class ModuleStack:
    """A list of the modules whose forward is running, so that an error message can name the module that failed.

    It registers hooks on all modules of the network; `remove` removes them again.
    """

    def __init__(self, model: nn.Module) -> None:
        self.paths: list[str] = []
        self._handles: list[Any] = []
        for path, module in model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._enter(path)))
            self._handles.append(module.register_forward_hook(self._leave))

    def _enter(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            self.paths.append(path)

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.paths.pop()

    def where(self, model: nn.Module) -> str:
        """Returns path and class of the innermost running module, such as ``layer1.0.conv (MyConv)``.

        Returns the class name of `model` if no module inside it is running.
        """
        if not self.paths or not self.paths[-1]:
            return type(model).__name__
        return f"{self.paths[-1]} ({type(model.get_submodule(self.paths[-1])).__name__})"

    def remove(self) -> None:
        """Removes the hooks from the network's modules."""
        for handle in self._handles:
            handle.remove()
