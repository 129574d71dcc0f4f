"""The training loop: one for the teacher, the plain student and every distilled one.

It reads top to bottom: `Objective` is what a step computes, `Trainer` owns the state a checkpoint holds, `fit` walks
the epochs. Everything random in an epoch is a function of (seed, epoch): so a run that was killed continues exactly.
"""

from __future__ import annotations

import atexit
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from bnn_itrd.checkpoint import load_checkpoint, save_checkpoint
from bnn_itrd.config import DistillConfig, FabricConfig, LogConfig, TrainConfig, differences
from bnn_itrd.data import UNLABELLED, ImageData, mix_seed
from bnn_itrd.distillers import Distiller, Setting, gather, make_distillers, measure
from bnn_itrd.errors import UserError
from bnn_itrd.evaluation import Evaluation, evaluate
from bnn_itrd.models import Observed, observe
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, penalty, set_progress, start_epoch
from bnn_itrd.records import Progress, TensorBoard, write_metrics

__all__ = ["Fitted", "Objective", "fit", "learning_rate", "make_fabric", "matching_state", "steps_in_epoch"]


def make_fabric(config: FabricConfig, *, precision: str = "32-true") -> Fabric:
    """The one Fabric of a command, launched: with several processes, each of them runs the command from here on."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=precision,  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"fabric: {error}") from error
    except Exception as error:  # lightning raises its own MisconfigurationException, which has no public base
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise UserError(f"fabric: {error}") from error
    if (have := fabric.strategy.precision.precision) != precision:  # fp16 becomes bf16 on a CPU, with a warning
        raise UserError(f"precision {precision} is not possible on this device ({fabric.device.type}): use {have}")
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """Closes the process group: left to the interpreter's last moments, gloo's threads may abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def learning_rate(
    step: int, *, steps: int, warmup: int, peak: float, drops: Sequence[int] | None = None, decay: float = 0.1
) -> float:
    """Linear from peak / warmup to the peak, then cosine towards 0: at step in [0, steps).

    drops: steps from which on the rate is `decay` times what it was, in the place of the cosine.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if drops is not None:
        return peak * decay ** sum(step >= drop for drop in drops)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def steps_in_epoch(train: TrainConfig, images: int, processes: int, *, field: str = "train") -> int:
    """Full batches in a pass over so many images. Raises UserError, naming the field, where they cannot be made."""
    size = train.batch_size
    if size > images:
        raise UserError(f"{field}.batch_size {size} is larger than the {images} training images")
    if size % processes:
        raise UserError(f"{field}.batch_size {size} must be a multiple of the {processes} processes")
    return images // size


# Epochs of preparation draw from here on, so that no epoch of the training repeats their order.
_PREPARATION = 1 << 20


class Objective(nn.Module):
    """What a training step computes: the student's forward pass, the teacher's, and the weighted losses.

    (images, labels, indices) -> (loss (), parts (k,), correct ()). `parts` are the weighted terms, in the order of
    `names`; `correct` counts right answers. Its parameters are the student's and the distillers'. While `preparing`,
    the terms are those of the distillers' phases of preparation, and the others are 0. `unlabelled`: some labels are
    `data.UNLABELLED`; those samples take part in the distillers' terms alone.
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
        # What a schedule makes of each weight at this step; in a buffer, so that a compiled step reads it.
        self.register_buffer("factors", torch.ones(len(self.names)), persistent=False)
        self.preparing: tuple[str, ...] = ()
        self._observed: tuple[Observed, Observed] | None = None
        if len(distillers):
            if teacher is None:
                raise ValueError(f"distillers {', '.join(distillers)} need a teacher")
            # In a tuple: neither the student's view nor the teacher belongs to the parameters or the checkpoint.
            self._observed = (observe(student), observe(teacher))

    def release(self) -> None:
        """Takes the observing hooks off both networks: they are the user's again."""
        for observed in self._observed or ():
            observed.remove()

    def forward(self, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
        ce = self._cross_entropy(logits.float(), labels)
        parts = [self.ce_weight * ce, *terms]
        if self.penalised:
            added = penalty(self.student)
            parts.append(torch.zeros((), device=images.device) if added is None else added)
        weighted = torch.stack([part.float() for part in parts]) * self.factors
        correct = (logits.detach().argmax(1) == labels).sum()
        return weighted.sum(), weighted.detach(), correct

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the samples that have a label, of all processes together; 0 where a batch has none."""
        if not self.unlabelled:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(
            logits, labels, ignore_index=UNLABELLED, reduction="sum", label_smoothing=self.label_smoothing
        )
        counts = gather((labels != UNLABELLED).sum().reshape(1))
        # Data-parallel training takes the mean of the processes' gradients, and their labelled samples are not as many.
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


@dataclass(frozen=True)
class Fitted:
    """A trained network (in eval mode; the moving average where one was asked for) and how it got there."""

    model: nn.Module
    history: list[dict[str, Any]]
    final: Evaluation

    @property
    def best(self) -> dict[str, Any]:
        """The row of the epoch with the best top-1 (the first of equals)."""
        return max((row for row in self.history if row["top1"] is not None), key=lambda row: row["top1"])


def _optimizer(config: TrainConfig, parameters: Any) -> torch.optim.Optimizer:
    # Lightning cannot unscale gradients for clipping where a fused optimiser would unscale them itself.
    fused = not (config.precision == "16-mixed" and config.clip_norm is not None)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=fused,
    )


class _Average(AveragedModel):
    """A moving average of parameters and buffers, after torch's, which at every step copies its number of updates to
    the device and waits for that copy. Whole numbers are the network's own."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        kept = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(kept, [*model.parameters(), *model.buffers()], strict=True))
        # The count is on the CPU, whatever the device: reading it waits for nothing.
        first = int(self.n_averaged) == 0
        moving = [pair for pair in pairs if pair[0].is_floating_point() and not first]
        if moving:
            torch._foreach_lerp_([average for average, _ in moving], [new for _, new in moving], 1 - self.decay)
        for average, new in pairs:
            if first or not average.is_floating_point():
                average.copy_(new)
        self.n_averaged += 1


@torch.no_grad()
def _positive(model: nn.Module) -> Tensor | None:
    """Which weights of the binary layers are +1, (weights,) bool; None of a network without such layers."""
    layers = [m for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    signs = [layer.binary_weight().signs.flatten() >= 0 for layer in layers]
    return torch.cat(signs) if signs else None


class _NonFinite:
    """Remembers, on the device, the step and the part of the first loss that was not finite."""

    def __init__(self, device: torch.device) -> None:
        self.first = torch.full((), -1, dtype=torch.int64, device=device)

    def look(self, step: int, parts: Tensor) -> None:
        bad = ~torch.isfinite(parts)
        code = step * len(parts) + bad.int().argmax()
        self.first = torch.where((self.first < 0) & bad.any(), code, self.first)

    def check(self, names: tuple[str, ...], steps_per_epoch: int, kept: str) -> None:
        """Raises UserError on the process that saw one, and on all the others."""
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
            self.ema = _Average(self.student, train.ema)
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
        self.raw_optimizer = _optimizer(train, [p for p in self.objective.parameters() if p.requires_grad])
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
        self, data: ImageData, steps_per_epoch: int, non_finite: _NonFinite, progress: Progress
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
        self, data: ImageData, steps_per_epoch: int, non_finite: _NonFinite, progress: Progress
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
        non_finite: _NonFinite,
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


def fit(
    student: nn.Module,
    teacher: nn.Module | None,
    data: ImageData,
    *,
    train: TrainConfig,
    distill: DistillConfig,
    fabric: Fabric,
    log: LogConfig,
    out: Path,
    identity: dict[str, Any],
    title: str = "",
    begin: Callable[[], None] | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> Fitted:
    """Trains a network, or continues where `out`/last.pt stands; the student is changed in place. No hook stays on
    the networks, whatever happens.

    `identity` is the configuration that must agree for a run to be continued (see `config.differences`).
    Writes last.pt, best.pt (by top-1 on the held-out images, or on the test images where none are held out),
    metrics.csv, preparation.csv where a distiller has a phase of its own, and TensorBoard files into `out`. `begin` is
    called on the main process where a run is new, once everything is found to fit and before anything is written.
    Raises UserError: another configuration in `out`, a batch larger than the data, a distiller that does not fit the
    networks, a loss that is not finite.
    """
    steps_per_epoch = steps_in_epoch(train, len(data.train), fabric.world_size)
    distill.check_learns()
    trainer = Trainer(
        student,
        teacher,
        input_shape=data.input_shape,
        train=train,
        distill=distill,
        fabric=fabric,
        labels=data.train.labels,
    )
    try:
        return _fit(trainer, data, steps_per_epoch, log, out, identity, title, begin, after_epoch)
    finally:
        trainer.objective.release()


def _fit(
    trainer: Trainer,
    data: ImageData,
    steps_per_epoch: int,
    log: LogConfig,
    out: Path,
    identity: dict[str, Any],
    title: str,
    begin: Callable[[], None] | None,
    after_epoch: Callable[[int], None] | None,
) -> Fitted:
    train, fabric = trainer.config, trainer.fabric
    last = out / "last.pt"
    if last.exists():
        trainer.restore(matching_state(last, identity))
    stands = trainer.epoch, len(trainer.preparation)
    if fabric.broadcast(stands) != stands:
        raise UserError(f"all processes must see the same {last}: put --out on a disk they share")
    split = data.test if data.val is None else data.val
    non_finite = _NonFinite(fabric.device)
    main = fabric.is_global_zero
    if main:
        if begin is not None and not last.exists():
            begin()
        for stale in out.glob(".*.tmp"):  # what a killed process was writing
            stale.unlink()
        if trainer.history:
            write_metrics(out / "metrics.csv", trainer.history)
        if trainer.preparation:
            write_metrics(out / "preparation.csv", trainer.preparation)
    board = TensorBoard(out, enabled=log.tensorboard and main, purge_step=trainer.epoch)
    # A compiled copy of the same module: the weights are shared, evaluation stays in float32.
    predictor = torch.compile(trainer.kept) if train.compile else trainer.kept
    final: Evaluation | None = None
    with Progress(
        title, epochs=train.epochs, steps=steps_per_epoch, names=trainer.objective.names,
        preparation=max(trainer.preparation_epochs.values(), default=0), batch_size=train.batch_size,
        enabled=log.progress and main, live=fabric.device.type == "cpu",
    ) as progress:  # fmt: skip
        _prepare(trainer, data, steps_per_epoch, non_finite, progress, out, identity)
        while trainer.epoch < train.epochs:
            progress.begin(trainer.epoch)
            row = trainer.train_epoch(data, steps_per_epoch, non_finite, progress)
            kept = f"{last} holds epoch {trainer.epoch}." if last.exists() else "No checkpoint was written yet."
            non_finite.check(trainer.objective.names, steps_per_epoch, kept)
            if not trainer.finite():  # the last update of an epoch shows in no loss any more
                raise UserError(
                    f"the weights were not finite at the end of epoch {trainer.epoch + 1}: training stopped. {kept} "
                    "Lower train.lr, or set train.clip_norm"
                )
            trainer.epoch += 1
            row |= {
                "split": "test" if data.val is None else "val",
                "top1": None,
                "top5": None,
                "eval_loss": None,
            }
            if trainer.epoch % train.eval_every == 0 or trainer.epoch == train.epochs:
                set_progress(trainer.kept, trainer.epoch / train.epochs)
                final = evaluate(predictor, split, device=fabric.device, channels_last=train.channels_last)
                row |= {"top1": final.top1, "top5": final.top5, "eval_loss": final.loss}
            trainer.history.append(row)
            if main:
                _save(trainer, out, identity)
                board.write(row)
            fabric.barrier()
            progress.end(row)
            if after_epoch is not None:
                after_epoch(trainer.epoch)
    board.close()
    trainer.share_buffers()
    model = trainer.kept
    set_progress(model, 1.0)
    if final is None:
        final = evaluate(predictor, split, device=fabric.device, channels_last=train.channels_last)
    return Fitted(model.eval(), trainer.history, final)


def _prepare(
    trainer: Trainer,
    data: ImageData,
    steps_per_epoch: int,
    non_finite: _NonFinite,
    progress: Progress,
    out: Path,
    identity: dict[str, Any],
) -> None:
    """The distillers' phases before the training, those that are not done yet; each epoch ends in a checkpoint."""
    length = max(trainer.preparation_epochs.values(), default=0)
    while (done := len(trainer.preparation)) < length:
        progress.begin(done, preparing=True)
        row = trainer.prepare_epoch(data, steps_per_epoch, non_finite, progress)
        kept = f"It was the preparation, of which {out / 'last.pt'} holds {done} of {length} epochs."
        non_finite.check(trainer.objective.names, steps_per_epoch, kept)
        if not trainer.finite():
            raise UserError(
                f"the weights were not finite at the end of epoch {done + 1}: training stopped. {kept} "
                "Lower train.lr, or set train.clip_norm"
            )
        trainer.preparation.append(row)
        if done + 1 == length:
            # What the training starts from has no momentum.
            trainer.raw_optimizer.state.clear()
        if trainer.fabric.is_global_zero:
            state = {"model": trainer.kept.state_dict(), "identity": identity, **trainer.state()}
            save_checkpoint(out / "last.pt", state)
            write_metrics(out / "preparation.csv", trainer.preparation)
        trainer.fabric.barrier()
        progress.end(row)
    trainer.end_preparation()


def matching_state(last: Path, identity: dict[str, Any], *, later: Sequence[str] = ()) -> dict[str, Any]:
    """The checkpoint, if it belongs to this configuration; `later` names what `identity` does not hold yet.

    Raises UserError: unreadable, not a run's checkpoint, or another configuration (a line for each field).
    """
    state = load_checkpoint(last)
    if not {"identity", "objective", "epoch"} <= state.keys():
        raise UserError(f"{last} is not the checkpoint of a training: choose another --out")
    saved = {key: value for key, value in state["identity"].items() if key not in later}
    if lines := differences(saved, identity):
        raise UserError(
            f"{last.parent} belongs to another configuration; choose another --out, or give the same settings:\n  "
            + "\n  ".join(lines)
        )
    return state


def _save(trainer: Trainer, out: Path, identity: dict[str, Any]) -> None:
    """last.pt holds all; best.pt the kept network of the best epoch so far; the CSV is written from the history."""
    row = trainer.history[-1]
    scored = [r["top1"] for r in trainer.history[:-1] if r["top1"] is not None]
    kept = trainer.kept.state_dict()
    if row["top1"] is not None and row["top1"] > max(scored, default=-1.0):
        save_checkpoint(
            out / "best.pt",
            {"model": kept, "epoch": trainer.epoch, "top1": row["top1"], "identity": identity},
        )
    save_checkpoint(out / "last.pt", {"model": kept, "identity": identity, **trainer.state()})
    write_metrics(out / "metrics.csv", trainer.history)
