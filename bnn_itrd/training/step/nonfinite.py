"""Checks that losses and weights are finite; the losses of an epoch are checked at once, without waiting for a GPU."""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn

from bnn_itrd.errors import UserError

__all__ = ["NonFinite", "check_weights_finite"]


def check_weights_finite(name: str, model: nn.Module) -> None:
    """Raises UserError if a weight or a buffer of a network is NaN or infinite; it is called before the training.

    name: 'teacher' or 'student', for the message.
    """
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(
                f"the {name}'s {key} is not finite (NaN or infinite) before the training: it is damaged, or its own "
                f"training diverged; give another {name}"
            )


class NonFinite:
    """Records the first step in which a part of the loss was NaN or infinite; the record is kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.first = torch.full((), -1, dtype=torch.int64, device=device)

    def record(self, step: int, parts: Tensor) -> None:
        """Records the first of some steps in which a part of the loss is NaN or infinite, without waiting for a GPU.

        step: the number of the first of them; parts: the parts of each step's loss, (n, k).
        """
        bad = ~torch.isfinite(parts).flatten()
        code = step * parts.shape[1] + bad.int().argmax()
        self.first = torch.where((self.first < 0) & bad.any(), code, self.first)

    def check(self, names: tuple[str, ...], steps_per_epoch: int, kept: str) -> None:
        """Raises UserError in all processes if one of them has recorded a loss that is NaN or infinite.

        names: names of the loss's parts; kept: a sentence about the last checkpoint, for the message.
        """
        first = self.first.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            seen = torch.where(first < 0, torch.iinfo(torch.int64).max, first)
            torch.distributed.all_reduce(seen, op=torch.distributed.ReduceOp.MIN)
            first = torch.where(seen == torch.iinfo(torch.int64).max, -1, seen)
        if (code := int(first)) >= 0:
            step, part = divmod(code, len(names))
            raise UserError(
                f"the loss part {names[part]!r} was not finite at step {step} (epoch {step // steps_per_epoch + 1}): "
                f"training stopped. {kept} Lower train.lr, or set train.clip_norm"
            )
