"""`Objective`, which computes the loss of a training step: both networks' forward passes and the sum of the losses."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.distillers.base import Distiller, gather
from bnn_itrd.models import Observed, evaluation_mode, observe
from bnn_itrd.quant import penalty, set_fused
from bnn_itrd.training.step.images import MixedLabels

__all__ = ["Objective"]


class Objective(nn.Module):
    """Computes the loss of a training step: the cross-entropy and the distillers' losses, with their weights.

    A call takes images (n, c, h, w), labels (n,), the images' places in the data set (n,), and for images that were
    mixed in pairs both labels of each. It returns the loss (), its weighted parts (k,) in the order of `names`, and the
    number of right answers (). The module's parameters are the student's and the distillers'.

    In the preparation, the epochs before the training, `preparing` has the names of some distillers. The parts are then
    those distillers' losses of the preparation, and all others are 0.

    Args:
        student, teacher: the two networks; the teacher may be None if there are no distillers
        distillers: the distillation losses by name
        ce_weight: weight of the cross-entropy
        label_smoothing: label smoothing of the cross-entropy
        unlabelled: whether some labels are `data.UNLABELLED`; such images count only in the distillers' losses
    """

    factors: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        distillers: nn.ModuleDict,
        *,
        ce_weight: float,
        label_smoothing: float,
        unlabelled: bool = False,
    ) -> None:
        super().__init__()
        self.unlabelled = unlabelled
        self.student = student
        self.distillers = distillers
        self.ce_weight, self.label_smoothing = ce_weight, label_smoothing
        self.penalised = any(callable(getattr(type(m), "penalty", None)) for m in student.modules())
        self.names = ("ce", *distillers, *(["penalty"] if self.penalised else []))
        # The factor on each part's weight in this step. It is a buffer, because a compiled step would not see a number
        # change.
        self.register_buffer("factors", torch.ones(len(self.names)), persistent=False)
        self.preparing: tuple[str, ...] = ()
        self._observed: tuple[Observed, Observed] | None = None
        if len(distillers):
            if teacher is None:
                raise ValueError(
                    f"distillers {', '.join(distillers)} need a teacher, got None: pass one, or no distillers"
                )
            # A tuple keeps both networks out of this module's parameters and of the checkpoint.
            self._observed = (observe(student), observe(teacher))

    def release(self) -> None:
        """Removes hooks and fused kernels from the networks; it is called at the end of a training."""
        set_fused(self.student, False)
        for observed in self._observed or ():
            observed.remove()

    def forward(
        self, images: Tensor, labels: Tensor, indices: Tensor, mixed: MixedLabels | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.preparing:
            return self._prepare(images, labels, indices)
        terms = []
        if self._observed is None:
            logits = self.student(images)
        else:
            student, teacher = self._observed
            with torch.no_grad():
                t = teacher(images)
            s = student(images)
            logits = s.logits
            for distiller in self.distillers.values():
                off = isinstance(distiller, Distiller) and distiller.only_prepares
                terms.append(torch.zeros((), device=images.device) if off else distiller(s, t, labels, indices))
        if mixed is None:
            ce = self._cross_entropy(logits.float(), labels)
        else:
            first, second = (self._cross_entropy(logits.float(), each) for each in (mixed.first, mixed.second))
            ce = mixed.share * first + (1 - mixed.share) * second
        parts = [self.ce_weight * ce, *terms]
        if self.penalised:
            added = penalty(self.student)
            parts.append(torch.zeros((), device=images.device) if added is None else added)
        weighted = torch.stack([part.float() for part in parts]) * self.factors
        correct = (logits.detach().argmax(1) == labels).sum()
        return weighted.sum(), weighted.detach(), correct

    @torch.no_grad()
    def watch(self, images: Tensor) -> dict[str, float]:
        """Returns the statistics of a batch that distillers record in metrics.csv, ``{"itrd.corr": 0.5, ...}``.

        Both networks run once, in float32 and in evaluation mode, so that no running statistic changes. Statistics that
        are NaN or infinite are left out.
        """
        watching: dict[str, Any] = {name: d for name, d in self.distillers.items() if getattr(d, "watches", False)}
        if self._observed is None or not watching:
            return {}
        student, teacher = self._observed
        with evaluation_mode(self.student), torch.autocast(images.device.type, enabled=False):
            s, t = student(images), teacher(images)
            watched = {name: distiller.watch(s, t) for name, distiller in watching.items()}
        flat = {f"{name}.{key}": value.float() for name, values in watched.items() for key, value in values.items()}
        numbers = torch.stack([*flat.values()]).tolist() if flat else []
        return {name: number for name, number in zip(flat, numbers, strict=True) if math.isfinite(number)}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the mean cross-entropy over the images with a label, of all processes, (); 0 if there are none."""
        if not self.unlabelled:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(
            logits, labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=self.label_smoothing
        )
        counts = gather((labels != UNLABELLED).sum().reshape(1))
        # DistributedDataParallel averages over processes, which may have different numbers of labelled images.
        return total * len(counts) / counts.sum().clamp(min=1)

    def _prepare(self, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the loss, its parts, and 0 right answers, for a step of the preparation (before the training)."""
        assert self._observed is not None
        student, teacher = self._observed
        with torch.no_grad():
            t = teacher(images)
        active: dict[str, Any] = {name: self.distillers[name] for name in self.preparing}
        s = student(images) if any(distiller.prepares_student for distiller in active.values()) else None
        terms = {name: distiller.prepare(s, t, labels, indices) for name, distiller in active.items()}
        zero = torch.zeros((), device=images.device)
        parts = torch.stack([terms.get(name, zero).float() for name in self.names])
        return parts.sum(), parts.detach(), torch.zeros((), dtype=torch.int64, device=images.device)
