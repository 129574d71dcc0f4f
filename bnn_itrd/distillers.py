"""From a student's and a teacher's `Outputs` to a loss: which part of them each loss of `bnn_itrd.losses` is given.

A distiller is a module called with (student outputs, teacher outputs, labels, sample indices); what it owns, parameters
and buffers, joins the optimiser and the checkpoint.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn

from bnn_itrd.config import DistillConfig, ITRDConfig, KDConfig
from bnn_itrd.losses import ITRD, KD
from bnn_itrd.models import Outputs

__all__ = ["Distiller", "ITRDDistiller", "KDDistiller", "gather", "make_distillers"]


class Distiller(nn.Module):
    """The interface: see the module's docstring."""

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        raise NotImplementedError


def gather(x: Tensor) -> Tensor:
    """Rows of all processes, (n, d) -> (world * n, d), with gradients; x itself in a single process.

    Every process then computes the same global loss; the backward pass sums their gradients for a row, and the mean
    over processes that data-parallel training takes makes that the gradient of one process with the global batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    if torch.distributed.get_world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(x.contiguous())))


class KDDistiller(Distiller):
    """Weighted `KD` on the logits."""

    def __init__(self, config: KDConfig) -> None:
        super().__init__()
        self.loss, self.weight = KD(tau=config.tau), config.weight

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        result: Tensor = self.weight * self.loss(student.logits, teacher.logits)
        return result


class ITRDDistiller(Distiller):
    """`ITRD` on the representations; its statistics over all processes' samples, or over each one's own."""

    def __init__(self, config: ITRDConfig, *, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.loss = ITRD(
            student_dim,
            teacher_dim,
            alpha=config.alpha,
            beta_corr=config.beta_corr,
            beta_mi=config.beta_mi,
        )
        self.gather = config.gather
        if config.beta_corr == 0 and student_dim == teacher_dim:
            # Unused: it would wait for a gradient in data-parallel training, and decay without one.
            self.loss.embed.requires_grad_(False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        z_s, z_t = student.representation, teacher.representation
        if self.gather:
            z_s, z_t = gather(z_s), gather(z_t)
        result: Tensor = self.loss(z_s, z_t)
        return result


def make_distillers(config: DistillConfig, *, student_dim: int, teacher_dim: int) -> nn.ModuleDict:
    """The distillers of a configuration, by their names there; dims are the widths of the representations."""
    distillers: dict[str, nn.Module] = {}
    if config.kd is not None:
        distillers["kd"] = KDDistiller(config.kd)
    if config.itrd is not None:
        distillers["itrd"] = ITRDDistiller(config.itrd, student_dim=student_dim, teacher_dim=teacher_dim)
    return nn.ModuleDict(distillers)
