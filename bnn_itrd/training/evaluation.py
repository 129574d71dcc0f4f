"""Accuracy, always in float32: autocast rounds the sums of +-1 products."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.data.splits import Split
from bnn_itrd.models import evaluation_mode

__all__ = ["Evaluation", "confusion", "evaluate", "score"]


@dataclass(frozen=True)
class Evaluation:
    """top1, top5 in percent; loss: mean cross-entropy in nats; logits (n, c), labels (n,), on the CPU.

    top5 counts the label among the five largest logits (among all, where there are fewer classes).
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
    """The `Evaluation` of logits (n, c) float32 and labels (n,)."""
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


@contextlib.contextmanager
def _no_tf32() -> Iterator[None]:
    """cuDNN's convolutions in float32: by default they round their inputs to TF32's ten bits."""
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
    batch_size: int = 500,
    channels_last: bool = False,
) -> Evaluation:
    """The network on every image of a split, in order, in eval mode and float32; its modules' modes are restored."""
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
    """(classes, classes) int64: row the label, column the prediction."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
