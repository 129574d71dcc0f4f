"""`make_teaching`, which makes a training's distillation losses and moves the teacher to the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.distillers.base import measure
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.errors import UserError
from bnn_itrd.training.step.nonfinite import check_weights_finite

__all__ = ["make_teaching"]


def make_teaching(
    student: nn.Module,
    teacher: nn.Module | None,
    *,
    input_shape: tuple[int, int, int],
    train: TrainConfig,
    distill: DistillConfig,
    device: torch.device,
    labels: Tensor | None,
) -> tuple[nn.Module | None, nn.ModuleDict]:
    """Returns the teacher, on the device and in evaluation mode, and the distillation losses that `distill` names.

    input_shape: (c, h, w) of an image; labels: labels of all training images, (n,), or None. Without distillation the
    teacher is returned unchanged, and there are no losses. Raises UserError if distillation has no teacher, or if a
    weight of the teacher is NaN or infinite.
    """
    if not distill.needs_teacher:
        return teacher, nn.ModuleDict()
    if teacher is None:
        raise UserError("distillation needs a teacher: give one, or remove the distillers from the configuration")
    check_weights_finite("teacher", teacher)
    memory = torch.channels_last if train.channels_last else torch.contiguous_format
    teacher = teacher.to(device, memory_format=memory).eval()  # type: ignore[call-overload]
    torch.manual_seed(mix_seed(train.seed, 1))
    setting = Setting(
        measure(student, input_shape),
        measure(teacher, input_shape),
        torch.zeros(0, dtype=torch.int64) if labels is None else labels,
    )
    return teacher, make_distillers(distill, setting).to(device)
