"""`BaseTrainer`, the base class of the trainers: optimiser steps, the content of checkpoints, checks for NaNs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed
from lightning.fabric import Fabric
from torch import Tensor, nn

from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.errors import UserError
from bnn_itrd.training.fabric import reset_loss_scale
from bnn_itrd.training.progress import Progress
from bnn_itrd.training.step.nonfinite import NonFinite

__all__ = ["BaseTrainer"]


class BaseTrainer:
    """Base class of a trainer, which minimises an objective with an optimiser under Lightning Fabric.

    It makes the optimiser's steps, and it makes and restores the content of a checkpoint. A subclass defines
    `train_epoch` and `evaluate_epoch`, which `training.fit.fit_epochs` calls.

    Args:
        objective: a module that takes a batch and returns the loss (), the loss's weighted parts (k,), and further
            values for the subclass
        optimizer: the optimiser of the objective's parameters
        fabric: the device, the processes and the precision
        names: names of the loss's parts, in their order
        seed: seed of a network's random numbers, such as dropout's
        clip_norm: largest norm of the gradient; None means no limit
    """

    objective: nn.Module
    names: tuple[str, ...]

    def __init__(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        fabric: Fabric,
        *,
        names: tuple[str, ...],
        seed: int,
        clip_norm: float | None,
    ) -> None:
        self.objective, self.names = objective, names
        self.raw_optimizer, self.fabric = optimizer, fabric
        self.seed, self.clip_norm = seed, clip_norm
        self.non_finite = NonFinite(fabric.device)
        self.history: list[dict[str, Any]] = []
        self.epoch = 0
        self.preparation: list[dict[str, Any]] = []
        self.setup()
        reset_loss_scale(fabric)

    def setup(self) -> None:
        """Wraps the objective and the optimiser with Fabric, for the precision and for several processes."""
        self.step_module, self.optimizer = self.fabric.setup(self.step_target(), self.raw_optimizer)

    def step_target(self) -> nn.Module:
        """Returns the module that a step calls: the objective, which a subclass may compile."""
        return self.objective

    def train_epoch(self, data: Any, progress: Progress) -> dict[str, Any]:
        """Trains for one epoch and returns its row of metrics.csv, column -> value, without the evaluation."""
        raise NotImplementedError

    def evaluate_epoch(self, data: Any) -> dict[str, Any]:
        """Evaluates the network after an epoch and returns the columns that this adds to the row of metrics.csv."""
        raise NotImplementedError

    def begin_pass(self, epoch: int) -> None:
        """Puts the objective in training mode and seeds torch's random numbers (for dropout) by the seed and epoch."""
        torch.manual_seed(mix_seed(self.seed, epoch, 2 + self.fabric.global_rank))
        self.objective.train()

    def step(self, *batch: Any, lr: float, synchronise: bool = True) -> list[Tensor]:
        """Makes one step of the optimiser with learning rate `lr`; returns what the objective returns after the loss.

        synchronise: whether DistributedDataParallel averages the gradients over the processes, for which every
        parameter must have one; if False, this method averages the gradients that there are.
        """
        for group in self.raw_optimizer.param_groups:
            group["lr"] = lr
        rest = self.gradients(*batch, synchronise=synchronise)
        if not synchronise:
            self._average_gradients()
        if self.clip_norm is not None:
            self.fabric.clip_gradients(
                self.step_module, self.optimizer, max_norm=self.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return rest

    def gradients(self, *batch: Any, synchronise: bool) -> list[Tensor]:
        """Computes the gradients of the objective on a batch; returns what the objective returns after the loss."""
        with nullcontext() if synchronise else self.fabric.no_backward_sync(self.step_module):
            loss, *rest = self._forward(*batch)
            self.fabric.backward(loss)
        return rest

    def _forward(self, *batch: Any) -> Any:
        """Calls the objective on a batch; raises UserError if a BatchNorm gets only one value for a channel."""
        try:
            return self.step_module(*batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "a BatchNorm got a single value per channel, which has no variance: use two or more images per process "
                f"in a batch (train.batch_size), or larger images ({error})"
            ) from error

    def _average_gradients(self) -> None:
        """Averages the gradients over all processes, for steps in which DistributedDataParallel does not."""
        if self.fabric.world_size > 1:
            for parameter in self.objective.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.fabric.world_size

    def stateful(self) -> dict[str, Any]:
        """Returns the objects whose state dicts a checkpoint saves, by their keys there; None if one is not used."""
        return {"objective": self.objective, "optimizer": self.raw_optimizer}

    def state(self) -> dict[str, Any]:
        """Returns the content of a checkpoint: state dicts, the number of epochs done, and the rows of metrics.csv."""
        return {
            **{key: None if part is None else part.state_dict() for key, part in self.stateful().items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the content of a checkpoint; raises UserError if it is damaged or of another network."""
        if not _are_rows(state["history"]) or not _are_rows(state.get("preparation", [])):
            raise UserError("the checkpoint's history is not a list of epochs with numbers: use another copy of it")
        try:
            for key, part in self.stateful().items():
                if part is not None:
                    part.load_state_dict(state[key])
            _check_fits(self.raw_optimizer)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                "the checkpoint does not fit this network and optimiser (undo the changes of their code, or choose "
                f"another --out): {error}"
            ) from error
        if state["precision"]:
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.epoch, self.history = state["epoch"], state["history"]

    def check_finite(self, epoch: int, steps_per_epoch: int, kept: str) -> None:
        """Raises UserError if a part of the loss, or a weight, was NaN or infinite in the epoch, counted from 0.

        kept: a sentence about the last checkpoint, for the message.
        """
        self.non_finite.check(self.names, steps_per_epoch, kept)
        if not self.finite():  # the last update of an epoch may do this, after which no loss is computed
            raise UserError(
                f"the weights were not finite at the end of epoch {epoch + 1}: training stopped. {kept} "
                "Lower train.lr, or set train.clip_norm"
            )

    def finite(self) -> bool:
        """Returns whether all weights and buffers that a checkpoint saves are finite, in every process.

        It is called only at the end of an epoch, because it waits for the device.
        """
        states = [part.state_dict() for part in self.stateful().values() if isinstance(part, nn.Module)]
        tensors = [t for state in states for t in state.values() if t.is_floating_point()]
        finite = torch.stack([torch.isfinite(t).all() for t in tensors]).all()
        if self.fabric.world_size > 1:
            # Running statistics differ between processes. If one process stopped alone, the others would wait for it.
            everywhere = finite.int()
            torch.distributed.all_reduce(everywhere, op=torch.distributed.ReduceOp.MIN)
            finite = everywhere.bool()
        return bool(finite)


def _are_rows(history: object) -> bool:
    """Returns whether a checkpoint's history is well-formed: a list with a dict of numbers and texts for each epoch."""
    return isinstance(history, list) and all(
        isinstance(row, dict)
        and isinstance(row.get("epoch"), int)
        and all(isinstance(value, (int, float, str, type(None))) for value in row.values())
        and isinstance(row.get("top1"), (int, float, type(None)))
        for row in history
    )


def _check_fits(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError if the optimiser's state has other shapes than its parameters, which torch does not check."""
    for parameter, kept in optimizer.state.items():
        if not isinstance(kept, dict):
            raise ValueError(f"the optimiser's state of a parameter is a {type(kept).__name__}, not a dict")
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                sizes = f"{tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}"
                raise ValueError(f"the optimiser's {name} has the shape {sizes}")
