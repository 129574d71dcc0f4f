"""Evaluates a network, always in float32, because autocast would round the sums of binary layers."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bnn_itrd.config.addresses import LIBRARIES
from bnn_itrd.data.splits import Split
from bnn_itrd.hashes import tensors_hash
from bnn_itrd.models import evaluation_mode
from bnn_itrd.quant import Scheme
from bnn_itrd.quant.options import PARTS
from bnn_itrd.quant.parts import part_name

__all__ = ["Evaluation", "confusion", "evaluate", "evaluated", "has_own_code", "kept_evaluation", "score", "to_keep"]

# The largest number of logits that a checkpoint saves: 16 MiB, such as 10,000 images with 400 classes.
_MOST_KEPT = 4_194_304
# The packages whose code is not a user's own.
_KNOWN = {"bnn_itrd", "torch", *LIBRARIES, *sys.stdlib_module_names}
# Attributes of modules that change nothing in an evaluation: the mode, whether training uses ReCU's GPU kernels, and
# two that describe a network, which a copy of a graph of torch.fx may lack.
_WITHOUT_EFFECT = ("training", "fused", "input_shape", "stages")
_PLAIN = (bool, int, float, str, tuple, list, type(None))


@dataclass(frozen=True)
class Evaluation:
    """The results of a network on n images with c classes.

    Args:
        top1: percentage of the images whose label has the largest logit
        top5: percentage of the images whose label is among the five largest logits; 100 with five classes or fewer
        loss: mean cross-entropy in nats
        logits: (n, c), on the CPU
        labels: (n,), on the CPU
    """

    top1: float
    top5: float
    loss: float
    logits: Tensor
    labels: Tensor

    @property
    def predictions(self) -> Tensor:
        return self.logits.argmax(1)


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """Returns the accuracies and the mean cross-entropy of logits, (n, c) float32, for the images' labels, (n,).

    >>> score(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1])).top1
    50.0
    """
    logits, labels = logits.cpu(), labels.cpu()
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    return Evaluation(
        top1=100 * float((logits.argmax(1) == labels).float().mean()),
        top5=100 * float(hits.any(1).float().mean()),
        loss=float(F.cross_entropy(logits, labels)),
        logits=logits,
        labels=labels,
    )


def has_own_code(model: nn.Module) -> bool:
    """Returns whether a network runs code of a user, not only of this package, PyTorch, torchvision, timm and Python.

    It does if a user wrote the class of one of its modules, a function or hook that a module holds, a part of a binary
    layer's scheme, or a function in a graph of torch.fx. A module of TorchScript counts too, because nothing tells
    whose code was compiled into it.

    >>> has_own_code(nn.Linear(2, 2)), has_own_code(type("MyLinear", (nn.Linear,), {"__module__": "nets"})(2, 2))
    (False, True)
    """
    modules = list(model.modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        return True
    return any(home not in _KNOWN for module in modules for thing in _code(module) for home in _homes(thing))


def _homes(thing: object) -> Iterator[str]:
    """Yields the name of the top package of a class or function; for C code without a module it is ``builtins``.

    For a function the package of its file follows, because functools.wraps gives it the module of another function.
    """
    for module in (getattr(thing, "__module__", None), getattr(thing, "__globals__", {}).get("__name__")):
        yield str(module or "builtins").partition(".")[0]


def _code(module: nn.Module) -> Iterator[object]:
    """Yields all classes and functions that a module runs or holds, but not those of the modules inside it."""
    yield from type(module).__mro__
    held = [*vars(module).values(), *module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    if isinstance(scheme := vars(module).get("scheme"), Scheme):
        held += [part for part in (getattr(scheme, name) for name in PARTS) if not isinstance(part, str)]
    if isinstance(module, fx.GraphModule):
        held += [node.target for node in module.graph.nodes if node.op == "call_function"]
    for thing in filter(callable, held):
        while isinstance(thing, functools.partial):
            thing = thing.func
        yield thing if hasattr(thing, "__qualname__") else type(thing)


def _structure(model: nn.Module) -> str:
    """Returns a text that is the same for two networks of equal modules with equal options, whatever their weights.

    It has a line for each module, with its path, its class, its public attributes that are plain values, functions or
    schemes, and what its repr shows. A graph of torch.fx has its code besides.
    """
    lines = []
    for path, module in model.named_modules():
        public = {k: v for k, v in vars(module).items() if k[0] != "_" and k not in _WITHOUT_EFFECT}
        shown = {k: repr(v) for k, v in public.items() if isinstance(v, (*_PLAIN, Scheme))}
        shown |= {k: part_name(v) for k, v in public.items() if callable(v)}
        # torch.fx gives each graph a class of its own, whose name is lost in a copy.
        kind = module.code if isinstance(module, fx.GraphModule) else part_name(type(module))
        lines.append(f"{path}: {kind} {sorted(shown.items())} {module.extra_repr()}")
    return "\n".join(lines)


def evaluated(model: nn.Module, split: Split) -> str | None:
    """Returns a hash of all that an evaluation depends on: the network's weights and modules, and the images.

    The images count with their labels and normalisation. Two evaluations with the same hash have the same result. It is
    None if the network runs a user's own code, which may change, or if the images have no hash (`Split.fingerprint`).
    """
    if has_own_code(model) or (images := split.fingerprint()) is None:
        return None
    return tensors_hash({text: torch.zeros(0) for text in (_structure(model), images)} | model.state_dict())


def to_keep(evaluation: Evaluation, model: nn.Module, split: Split) -> dict[str, Any] | None:
    """Returns what a checkpoint saves of an evaluation, so that a later command need not repeat it.

    It has the logits, the labels, and the hash of network and images (`evaluated`). It is None if there are too many
    logits, or if they have no hash.
    """
    if evaluation.logits.numel() > _MOST_KEPT or (of := evaluated(model, split)) is None:
        return None
    return {"of": of, "logits": evaluation.logits, "labels": evaluation.labels}


def kept_evaluation(kept: object, model: nn.Module, split: Split) -> Evaluation | None:
    """Returns the evaluation that a checkpoint has saved, or None if it saved none that fits.

    `kept` is what `to_keep` returned. It fits if it was made with the same network, images, labels and normalisation.
    No evaluation fits a network that runs a user's own code (`has_own_code`), which may have changed since.
    """
    if not isinstance(kept, dict) or not isinstance(kept.get("of"), str):
        return None
    logits, labels = kept.get("logits"), kept.get("labels")
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor) or logits.dim() != 2 or not len(logits):
        return None
    if logits.shape[:1] != labels.shape or kept["of"] != evaluated(model, split):
        return None
    return score(logits, labels)


@contextlib.contextmanager
def _no_tf32() -> Iterator[None]:
    """Makes cuDNN's convolutions compute in full float32 within a ``with`` block.

    By default they round their inputs to TF32, whose mantissa has ten bits.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@torch.no_grad()
def evaluate(
    model: nn.Module | Callable[[Tensor], Tensor],
    split: Split,
    *,
    device: torch.device,
    batch_size: int | None = None,
    channels_last: bool = False,
) -> Evaluation:
    """Evaluates a network on all images of a split, in evaluation mode and float32, and returns the results.

    The logits are in the order of the images. Afterwards each module is again in the mode in which it was.

    Args:
        model: the network, or a function from images (n, c, h, w) to logits
        split: the images with their labels
        device: where the network is
        batch_size: number of images in a forward pass; None means 500, or 100 on a CPU, which takes a quarter less time
            there than 500 (ResNet-18 on an AMD EPYC, timed once)
        channels_last: whether the images are given in PyTorch's channels-last memory format
    """
    if batch_size is None:
        batch_size = 100 if device.type == "cpu" else 500
    mode = evaluation_mode(model) if isinstance(model, nn.Module) else contextlib.nullcontext()
    logits, labels = [], []
    with mode, torch.autocast(device.type, enabled=False), _no_tf32():
        for images, truth, _ in split.eval_batches(batch_size, device=device):
            if channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            logits.append(model(images).float())
            labels.append(truth)
    return score(torch.cat(logits), torch.cat(labels))


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Returns the confusion matrix: how often images of a class (row) got each prediction (column), int64.

    The shapes are (n,), (n,) -> (classes, classes).

    >>> confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
