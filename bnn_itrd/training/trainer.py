"""The state of one training, and its epochs: the learning rate, the step, the moving average, what a checkpoint holds.

Everything random in an epoch is a function of (seed, epoch): so a run that was killed continues exactly.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import Distiller, Setting, make_distillers, measure
from bnn_itrd.errors import UserError
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, set_progress, start_epoch
from bnn_itrd.training.nonfinite import NonFinite
from bnn_itrd.training.objective import Objective
from bnn_itrd.training.optimizer import MovingAverage, learning_rate, make_optimizer
from bnn_itrd.training.progress import Progress

__all__ = ["Trainer"]


# Epochs of preparation draw from here on, so that no epoch of the training repeats their order.
_PREPARATION = 1 << 20


@torch.no_grad()
def _positive(model: nn.Module) -> Tensor | None:
    """Which weights of the binary layers are +1, (weights,) bool; None of a network without such layers."""
    layers = [m for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    signs = [layer.binary_weight().signs.flatten() >= 0 for layer in layers]
    return torch.cat(signs) if signs else None


class Trainer:
    """The state of one training: what is stepped, and what a checkpoint holds."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        input_shape: tuple[int, int, int],
        train: TrainConfig,
        distill: DistillConfig,
        fabric: Fabric,
        labels: Tensor | None = None,
    ) -> None:
        self.config, self.fabric, self.distill = train, fabric, distill
        memory = torch.channels_last if train.channels_last else torch.contiguous_format
        self.student = student.to(fabric.device, memory_format=memory)  # type: ignore[call-overload]
        # Before anything observes the student: a copy would take the hooks along.
        self.ema: AveragedModel | None = None
        if train.ema is not None:
            self.ema = MovingAverage(self.student, train.ema)
        distillers = nn.ModuleDict()
        if distill.needs_teacher:
            if teacher is None:
                raise UserError("distillation needs a teacher")
            teacher = teacher.to(fabric.device, memory_format=memory).eval()  # type: ignore[call-overload]
            torch.manual_seed(mix_seed(train.seed, 1))
            setting = Setting(
                measure(self.student, input_shape),
                measure(teacher, input_shape),
                torch.zeros(0, dtype=torch.int64) if labels is None else labels,
            )
            distillers = make_distillers(distill, setting).to(fabric.device)
        self.objective = Objective(
            self.student,
            teacher,
            distillers,
            ce_weight=distill.ce,
            label_smoothing=train.label_smoothing,
            unlabelled=labels is not None and bool((labels == UNLABELLED).any()),
        )
        self.raw_optimizer = make_optimizer(train, [p for p in self.objective.parameters() if p.requires_grad])
        self._setup()
        # One Fabric serves a run's members one after the other: each begins with a loss scale of its own.
        scaler = getattr(fabric.strategy.precision, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            scaler.load_state_dict(torch.amp.GradScaler(fabric.device.type).state_dict())
        self.history: list[dict[str, Any]] = []
        self.epoch = 0
        self.preparation: list[dict[str, Any]] = []

    def _setup(self) -> None:
        """Wraps what is stepped: for precision, several processes and compilation."""
        if self.fabric.world_size > 1:
            distillers = self.objective.distillers.items()
            names = [f"distillers.{name}.{b}" for name, d in distillers for b in getattr(d, "replicated", ())]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.objective, names)
        step_module: nn.Module = self.objective
        if self.config.compile:
            step_module = torch.compile(self.objective, mode=self.config.compile_mode)  # type: ignore[assignment]
        self.step_module, self.optimizer = self.fabric.setup(step_module, self.raw_optimizer)

    @property
    def preparation_epochs(self) -> dict[str, int]:
        """The distillers that have a phase before the training, and how long it is."""
        lengths = {name: int(getattr(d, "preparation_epochs", 0)) for name, d in self.objective.distillers.items()}
        return {name: length for name, length in lengths.items() if length}

    def end_preparation(self) -> None:
        """Freezes what the phases trained for themselves."""
        for distiller in self.objective.distillers.values():
            if isinstance(distiller, Distiller) and distiller.preparation_epochs:
                distiller.prepared()
        if self.preparation_epochs and self.fabric.world_size > 1:
            # Data-parallel training waits for the gradients of all parameters that were not frozen when it was set up.
            self._setup()

    @property
    def kept(self) -> nn.Module:
        """The network that is evaluated and kept: the student, or its moving average."""
        return self.student if self.ema is None else self.ema.module

    def state(self) -> dict[str, Any]:
        scaler = self.fabric.strategy.precision.state_dict()
        return {
            "objective": self.objective.state_dict(),
            "optimizer": self.raw_optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "precision": scaler,
            "epoch": self.epoch,
            "history": self.history,
            "preparation": self.preparation,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Raises UserError where the state is another network's."""
        try:
            self.objective.load_state_dict(state["objective"])
            self.raw_optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"the checkpoint holds another architecture: {error}") from error
        if state["precision"]:
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.preparation = state.get("preparation", [])

    def finite(self) -> bool:
        """Whether all numbers are, the kept network's and what is trained, in every process: one look, at the end of
        an epoch."""
        states = [self.objective.state_dict(), *([] if self.ema is None else [self.ema.module.state_dict()])]
        tensors = [t for state in states for t in state.values() if t.is_floating_point()]
        finite = torch.stack([torch.isfinite(t).all() for t in tensors]).all()
        if self.fabric.world_size > 1:
            # Running statistics are each process's own: one that stopped alone would leave the others waiting.
            everywhere = finite.int()
            torch.distributed.all_reduce(everywhere, op=torch.distributed.ReduceOp.MIN)
            finite = everywhere.bool()
        return bool(finite)

    def share_buffers(self) -> None:
        """Every process keeps the first one's running statistics: those that are saved and evaluated."""
        if self.fabric.world_size > 1:
            for buffer in self.kept.buffers():
                torch.distributed.broadcast(buffer, 0)

    def prepare_epoch(
        self, data: ImageData, steps_per_epoch: int, non_finite: NonFinite, progress: Progress
    ) -> dict[str, Any]:
        """One pass of the distillers' preparation, at the peak learning rate; its numbers as of `train_epoch`."""
        done = len(self.preparation)
        active = tuple(name for name, epochs in self.preparation_epochs.items() if done < epochs)
        set_progress(self.objective, 0.0)
        if any(getattr(self.objective.distillers[name], "prepares_student", False) for name in active):
            start_epoch(self.student)
        self.objective.preparing = active
        try:
            row = self._pass(data, steps_per_epoch, non_finite, progress, epoch=_PREPARATION + done, preparing=True)
        finally:
            self.objective.preparing = ()
        return row

    def train_epoch(
        self, data: ImageData, steps_per_epoch: int, non_finite: NonFinite, progress: Progress
    ) -> dict[str, Any]:
        """One pass; the mean of each loss part, the training accuracy, the speed, and how many signs are others now
        than before it. Nothing in it waits for the device before its end."""
        before = _positive(self.student)
        start_epoch(self.student)
        row = self._pass(data, steps_per_epoch, non_finite, progress, epoch=self.epoch, preparing=False)
        if (after := _positive(self.student)) is not None and before is not None:
            row["sign_flips"] = 100 * float((before != after).float().mean())
        return row

    def _before_step(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """Sets what changes from step to step: the learning rate (which it returns), annealing, scheduled weights."""
        config = self.config
        drops = [m * steps_per_epoch for m in config.milestones] if config.schedule == "step" else None
        warmup = round(config.warmup * steps_per_epoch)
        lr = learning_rate(step, steps=steps, warmup=warmup, peak=config.lr, drops=drops, decay=config.decay)
        set_progress(self.objective, step / steps)
        methods = self.distill.methods
        if any(method.scheduled for method in methods.values()):
            epoch = step / steps_per_epoch
            factors = [methods[n].factor(epoch, config.epochs) if n in methods else 1.0 for n in self.objective.names]
            self.objective.factors.copy_(torch.tensor(factors), non_blocking=True)
        return lr

    def _average_gradients(self) -> None:
        """Of all processes, where the wrapper was told not to."""
        if self.fabric.world_size > 1:
            for parameter in self.objective.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.fabric.world_size

    def _pass(
        self,
        data: ImageData,
        steps_per_epoch: int,
        non_finite: NonFinite,
        progress: Progress,
        *,
        epoch: int,
        preparing: bool,
    ) -> dict[str, Any]:
        config, fabric = self.config, self.fabric
        # What a network draws by itself (dropout) depends on (seed, epoch) too.
        torch.manual_seed(mix_seed(config.seed, epoch, 2 + fabric.global_rank))
        self.objective.train()
        steps = config.epochs * steps_per_epoch
        sums = torch.zeros(len(self.objective.names) + 2, device=fabric.device)
        started = time.perf_counter()
        batches = data.train.train_batches(
            config.batch_size,
            seed=config.seed,
            epoch=epoch,
            device=fabric.device,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        lr = config.lr
        for i, (images, labels, indices) in enumerate(batches):
            step = (len(self.preparation) if preparing else epoch) * steps_per_epoch + i
            if not preparing:
                lr = self._before_step(step, steps, steps_per_epoch)
            for group in self.raw_optimizer.param_groups:
                group["lr"] = lr
            if config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            if config.compile_mode is not None:
                torch.compiler.cudagraph_mark_step_begin()
            # In a preparation many parameters have no gradient, which data-parallel training would wait for.
            with fabric.no_backward_sync(self.step_module) if preparing else nullcontext():
                loss, parts, correct = self.step_module(images, labels, indices)
                fabric.backward(loss)
            if preparing:
                self._average_gradients()
            if config.clip_norm is not None:
                fabric.clip_gradients(
                    self.step_module, self.optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
                )
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.ema is not None and not preparing:
                self.ema.update_parameters(self.student)
            non_finite.look(step, parts)
            labelled = (labels != UNLABELLED).sum()
            sums += torch.cat([parts.float(), torch.stack([correct, labelled]).float()])
            progress.step(i + 1, parts)
        if fabric.world_size > 1:
            torch.distributed.all_reduce(sums)
            sums[:-2] /= fabric.world_size
        *values, right, labelled_seen = sums.tolist()
        seconds = time.perf_counter() - started
        images_seen = steps_per_epoch * config.batch_size
        number = (len(self.preparation) if preparing else epoch) + 1
        row: dict[str, Any] = {"epoch": number, "lr": lr, "loss": sum(values) / steps_per_epoch}
        shown = self.objective.preparing if preparing else self.objective.names
        for name, value in zip(self.objective.names, values, strict=True):
            if name in shown:
                row[f"loss_{name}"] = value / steps_per_epoch
        if not preparing:
            row["train_top1"] = 100 * right / max(1, labelled_seen)
        row["seconds"] = seconds
        row["images_per_s"] = images_seen / seconds
        return row
