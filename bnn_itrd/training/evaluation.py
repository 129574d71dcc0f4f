"""Evaluation of a network, always in float32, since autocast rounds the sums of +-1 products."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.data.splits import Split
from bnn_itrd.hashes import tensors_hash
from bnn_itrd.models import evaluation_mode

__all__ = ["Evaluation", "confusion", "evaluate", "evaluated", "kept_evaluation", "score", "to_keep"]

# Logits of an evaluation that a checkpoint keeps at the most: 16 MiB, 10,000 images of 400 classes.
_MOST_KEPT = 4_194_304


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    top1, top5: accuracy in percent; top5 counts a label among the five largest logits, or among all of fewer classes.
    loss: mean cross-entropy in nats. logits (n, c), labels (n,): on the CPU.
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
    """Returns the `Evaluation` of logits (n, c) float32 and labels (n,).

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


def evaluated(model: nn.Module, split: Split) -> str | None:
    """Returns a hash, in hex, of all that an evaluation depends on: the network's state, images, labels, normalisation.

    It is None if the split has no fingerprint (`Split.fingerprint`).
    """
    images = split.fingerprint()
    return None if images is None else tensors_hash({images: torch.zeros(0), **model.state_dict()})


def to_keep(evaluation: Evaluation, model: nn.Module, split: Split) -> dict[str, Any] | None:
    """Returns the part of an evaluation that a checkpoint keeps, so that a later command need not repeat it.

    It is None if the logits are too many, or if the split has no fingerprint to recognise its images by.
    """
    if evaluation.logits.numel() > _MOST_KEPT or (of := evaluated(model, split)) is None:
        return None
    return {"of": of, "logits": evaluation.logits, "labels": evaluation.labels}


def kept_evaluation(kept: object, model: nn.Module, split: Split) -> Evaluation | None:
    """Returns the evaluation that a checkpoint keeps (`to_keep`), or None if it keeps none.

    It is also None if the kept evaluation was made with other weights, images, labels or normalisation.
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
    """Lets cuDNN's convolutions compute in float32; by default they round their inputs to TF32's ten bits."""
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
    """Evaluates a network on every image of a split, in order, in eval mode and float32; restores its modules' modes.

    batch_size: by default 500, and 100 on a CPU: a quarter less time (ResNet-18 on an AMD EPYC, timed once).
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
    """Returns how often each label (row) got each prediction (column): (n,), (n,) -> (classes, classes) int64.

    >>> confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
