"""The base class of all trainers: the step, the state of a checkpoint, the check for numbers that are not finite."""

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
    """Trains an objective with an optimiser under Lightning Fabric, and makes and restores the state of a checkpoint.

    The objective is a module that takes a batch and returns the loss (), its weighted parts (k,) in the order of
    `names`, and further values for the subclass. A subclass defines `train_epoch` and `evaluate_epoch`, which
    `training.fit.fit_epochs` calls.
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
        """Wraps the module and the optimiser for the precision and for several processes."""
        self.step_module, self.optimizer = self.fabric.setup(self.step_target(), self.raw_optimizer)

    def step_target(self) -> nn.Module:
        """Returns the module that a step calls: the objective, or the compiled objective."""
        return self.objective

    def train_epoch(self, data: Any, progress: Progress) -> dict[str, Any]:
        """Trains for one epoch and returns its row of metrics.csv, without the evaluation."""
        raise NotImplementedError

    def evaluate_epoch(self, data: Any) -> dict[str, Any]:
        """Evaluates the network after an epoch and returns the columns that this adds to the row."""
        raise NotImplementedError

    def begin_pass(self, epoch: int) -> None:
        """Puts the objective in training mode, and seeds a network's own random numbers (dropout) by (seed, epoch)."""
        torch.manual_seed(mix_seed(self.seed, epoch, 2 + self.fabric.global_rank))
        self.objective.train()

    def step(self, *batch: Any, lr: float, synchronise: bool = True) -> list[Tensor]:
        """Makes one step of the optimiser; returns what the objective returns after the loss.

        synchronise: DistributedDataParallel averages the gradients, for which every parameter must have one; False:
        the gradients that exist are averaged here.
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
        """Runs the objective forward and backward; returns what it returns after the loss."""
        with nullcontext() if synchronise else self.fabric.no_backward_sync(self.step_module):
            loss, *rest = self._forward(*batch)
            self.fabric.backward(loss)
        return rest

    def _forward(self, *batch: Any) -> Any:
        """Calls the objective. Raises UserError if a BatchNorm gets a single value per channel."""
        try:
            return self.step_module(*batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                "a BatchNorm got a single value per channel, of which there is no variance: use two or more images per "
                f"process in a batch (train.batch_size), or larger images: {error}"
            ) from error

    def _average_gradients(self) -> None:
        """Averages the gradients over all processes, for steps in which DistributedDataParallel does not."""
        if self.fabric.world_size > 1:
            for parameter in self.objective.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.fabric.world_size

    def stateful(self) -> dict[str, Any]:
        """Returns the objects whose state dicts a checkpoint contains, key -> object; None for one that is not used."""
        return {"objective": self.objective, "optimizer": self.raw_optimizer}

    def state(self) -> dict[str, Any]:
        """Returns the contents of a checkpoint."""
        return {
            **{key: None if part is None else part.state_dict() for key, part in self.stateful().items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the state of a checkpoint. Raises UserError if it is damaged, or another network's."""
        if not _are_rows(state["history"]) or not _are_rows(state.get("preparation", [])):
            raise UserError("the checkpoint's history is not a list of epochs with numbers: use another copy of it")
        try:
            for key, part in self.stateful().items():
                if part is not None:
                    part.load_state_dict(state[key])
            _check_fits(self.raw_optimizer)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the checkpoint is of another architecture: {error}") from error
        if state["precision"]:
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.epoch, self.history = state["epoch"], state["history"]

    def check_finite(self, epoch: int, steps_per_epoch: int, kept: str) -> None:
        """Raises UserError if a part of the loss, or a weight, was not finite in the epoch (counted from 0).

        kept: a sentence about the last checkpoint, for the message.
        """
        self.non_finite.check(self.names, steps_per_epoch, kept)
        if not self.finite():  # no loss is computed after the last update of an epoch
            raise UserError(
                f"the weights were not finite at the end of epoch {epoch + 1}: training stopped. {kept} "
                "Lower train.lr, or set train.clip_norm"
            )

    def finite(self) -> bool:
        """Returns whether all numbers of the checkpoint's modules are finite, in every process.

        It waits for the device, so it is called only at the end of an epoch.
        """
        states = [part.state_dict() for part in self.stateful().values() if isinstance(part, nn.Module)]
        tensors = [t for state in states for t in state.values() if t.is_floating_point()]
        finite = torch.stack([torch.isfinite(t).all() for t in tensors]).all()
        if self.fabric.world_size > 1:
            # Running statistics differ between processes; one that stops alone would leave the others waiting.
            everywhere = finite.int()
            torch.distributed.all_reduce(everywhere, op=torch.distributed.ReduceOp.MIN)
            finite = everywhere.bool()
        return bool(finite)


def _are_rows(history: object) -> bool:
    """Returns whether a value is a history: a list with a dict of numbers and texts for each epoch."""
    return isinstance(history, list) and all(
        isinstance(row, dict)
        and isinstance(row.get("epoch"), int)
        and all(isinstance(value, (int, float, str, type(None))) for value in row.values())
        and isinstance(row.get("top1"), (int, float, type(None)))
        for row in history
    )


def _check_fits(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError if the optimiser's state lacks the shapes of its parameters, which torch does not check."""
    for parameter, kept in optimizer.state.items():
        if not isinstance(kept, dict):
            raise ValueError(f"the optimiser's state of a parameter is a {type(kept).__name__}, not a dict")
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                sizes = f"{tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}"
                raise ValueError(f"the optimiser's {name} has the shape {sizes}")
