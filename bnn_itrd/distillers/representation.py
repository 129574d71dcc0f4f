"""Distillers of the representation, the input of the classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bnn_itrd.config.distillers import CCConfig, CRDConfig, ITRDConfig, PKTConfig, RKDConfig, SRDConfig, WCoRDConfig
from bnn_itrd.distillers.base import Distiller, Setting, gather
from bnn_itrd.losses import CC, CRD, ITRD, RKD, SRD, WCoRD, pkt_loss
from bnn_itrd.models import Outputs

__all__ = [
    "CCDistiller",
    "CRDDistiller",
    "ITRDDistiller",
    "PKTDistiller",
    "RKDDistiller",
    "SRDDistiller",
    "WCoRDDistiller",
]


class ITRDDistiller(Distiller):
    """`ITRD` on the representations; its statistics over all processes' samples, or over each one's own."""

    def __init__(self, config: ITRDConfig, setting: Setting) -> None:
        super().__init__()
        student_dim, teacher_dim = setting.student.representation, setting.teacher.representation
        self.loss = ITRD(
            student_dim,
            teacher_dim,
            alpha=config.alpha,
            beta_corr=config.beta_corr,
            beta_mi=config.beta_mi,
        )
        self.gather, self.weight = config.gather, config.weight
        if config.beta_corr == 0 and (config.beta_mi == 0 or student_dim == teacher_dim):
            # Unused: it would wait for a gradient in data-parallel training, and decay without one.
            self.loss.embed.requires_grad_(False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        z_s, z_t = student.representation, teacher.representation
        if self.gather:
            z_s, z_t = gather(z_s), gather(z_t)
        result: Tensor = self.weight * self.loss(z_s, z_t)
        return result


class _Pairs(Distiller):
    """A weighted loss of the two representations; over each process's own samples."""

    loss: Callable[[Tensor, Tensor], Tensor]

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return self.weight * self.loss(student.representation, teacher.representation)


class CCDistiller(_Pairs):
    """Weighted `CC`."""

    def __init__(self, config: CCConfig, setting: Setting) -> None:
        super().__init__(config.weight)
        dims = setting.student.representation, setting.teacher.representation
        self.loss = CC(*dims, embed_dim=config.embed_dim, form=config.form)


class RKDDistiller(_Pairs):
    """Weighted `RKD`."""

    def __init__(self, config: RKDConfig, setting: Setting) -> None:
        super().__init__(config.weight)
        self.loss = RKD(distance=config.distance, angle=config.angle)


class PKTDistiller(_Pairs):
    """Weighted `pkt_loss`."""

    def __init__(self, config: PKTConfig, setting: Setting) -> None:
        super().__init__(config.weight)
        self.loss = pkt_loss


class SRDDistiller(_Pairs):
    """Weighted `SRD`."""

    def __init__(self, config: SRDConfig, setting: Setting) -> None:
        super().__init__(config.weight)
        dims = setting.student.representation, setting.teacher.representation
        self.loss = SRD(*dims, exponent=config.exponent)


class _Contrast(Distiller):
    """With a memory bank of all training samples.

    Several processes: each scores the global batch, against negatives of its own, and writes all its rows: so the banks
    stay the same everywhere. ln Z, from the first batch's negatives, becomes the first process's.
    """

    replicated = ("loss.memory.bank_s", "loss.memory.bank_t", "loss.memory.labels", "loss.memory.order")
    reads_labels = True
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    weight: float

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        z_s, z_t, rows = gather(student.representation), gather(teacher.representation), gather(indices)
        return self.weight * self.loss(z_s, z_t, rows)


class CRDDistiller(_Contrast):
    """Weighted `CRD`."""

    def __init__(self, config: CRDConfig, setting: Setting) -> None:
        super().__init__()
        self.weight = config.weight
        self.loss = CRD(*_sides(setting), **_bank(config))


class WCoRDDistiller(_Contrast):
    """Weighted `WCoRD`."""

    def __init__(self, config: WCoRDConfig, setting: Setting) -> None:
        super().__init__()
        self.weight = config.weight
        self.loss = WCoRD(
            *_sides(setting),
            **_bank(config),
            beta_global=config.beta_global,
            beta_local=config.beta_local,
            epsilon=config.epsilon,
            iterations=config.iterations,
        )


def _sides(setting: Setting) -> tuple[int, int, Tensor]:
    """What every contrast is between, and the labels its negatives are drawn by."""
    return setting.student.representation, setting.teacher.representation, setting.labels


def _bank(config: CRDConfig | WCoRDConfig) -> dict[str, Any]:
    return {
        "embed_dim": config.embed_dim,
        "num_negatives": config.negatives,
        "temperature": config.temperature,
        "momentum": config.momentum,
    }
