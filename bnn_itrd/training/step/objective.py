"""The objective of a training: the student's and the teacher's forward pass, and the weighted sum of the losses."""

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
    """A module that computes the loss of a training step from the student's and the teacher's outputs.

    (images (n, c, h, w), labels (n,), indices (n,), mixed or None) -> (loss (), parts (k,), correct ()). `parts` are
    the weighted terms in the order of `names`; `correct` is the number of right answers. The module's parameters are
    the student's and the distillers'. While `preparing` is set, the terms are those of the distillers' preparation, and
    the others are 0. unlabelled: some labels are `data.UNLABELLED`; these samples count in the distillers' terms only.
    mixed: both labels of images that were mixed in pairs, for the cross-entropy; `labels` are those of larger share.
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
        # The factor of a schedule on each weight in this step; it is a buffer, so that a compiled step reads it.
        self.register_buffer("factors", torch.ones(len(self.names)), persistent=False)
        self.preparing: tuple[str, ...] = ()
        self._observed: tuple[Observed, Observed] | None = None
        if len(distillers):
            if teacher is None:
                raise ValueError(f"distillers {', '.join(distillers)} need a teacher")
            # A tuple keeps both out of the module's parameters and of the checkpoint.
            self._observed = (observe(student), observe(teacher))

    def release(self) -> None:
        """Takes the observing hooks and the fused kernels off the networks: they are the user's again."""
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
        """Returns the numbers that the distillers report on a batch of images, ``itrd.corr`` -> number.

        Both networks run once in evaluation mode and float32, so no running statistic changes. Numbers that are not
        finite are left out.
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
        """Returns the mean cross-entropy over the labelled samples of all processes; 0 if a batch has none."""
        if not self.unlabelled:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(
            logits, labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=self.label_smoothing
        )
        counts = gather((labels != UNLABELLED).sum().reshape(1))
        # DistributedDataParallel averages over processes, which may have different numbers of labelled samples.
        return total * len(counts) / counts.sum().clamp(min=1)

    def _prepare(self, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
