"""Distillers of the logits."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bnn_itrd.config.distillers import DISTConfig, DKDConfig, KDConfig
from bnn_itrd.distillers.base import Distiller, Setting
from bnn_itrd.errors import UserError
from bnn_itrd.losses import DIST, DKD, KD
from bnn_itrd.models import Outputs

__all__ = ["DISTDistiller", "DKDDistiller", "KDDistiller"]


def _check_classes(name: str, setting: Setting) -> None:
    if setting.student.logits != setting.teacher.logits:
        raise UserError(
            f"{name} compares logits, and the student has {setting.student.logits} classes, the teacher "
            f"{setting.teacher.logits}: use one of the representation or of maps (itrd, at, vid ...)"
        )


class KDDistiller(Distiller):
    """Weighted `KD`."""

    def __init__(self, config: KDConfig, setting: Setting) -> None:
        super().__init__()
        _check_classes("kd", setting)
        self.loss, self.weight = KD(tau=config.tau), config.weight

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        result: Tensor = self.weight * self.loss(student.logits, teacher.logits)
        return result


class DKDDistiller(Distiller):
    """Weighted `DKD`."""

    reads_labels = True

    def __init__(self, config: DKDConfig, setting: Setting) -> None:
        super().__init__()
        _check_classes("dkd", setting)
        self.loss, self.weight = DKD(alpha=config.alpha, beta=config.beta, tau=config.tau), config.weight

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        result: Tensor = self.weight * self.loss(student.logits, teacher.logits, labels)
        return result


class DISTDistiller(KDDistiller):
    """Weighted `DIST`."""

    def __init__(self, config: DISTConfig, setting: Setting) -> None:
        Distiller.__init__(self)
        _check_classes("dist", setting)
        loss: Any = DIST(beta=config.beta, gamma=config.gamma, tau=config.tau)
        self.loss, self.weight = loss, config.weight
