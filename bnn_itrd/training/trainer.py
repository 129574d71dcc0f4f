"""`Trainer`, which trains a network on images; all random numbers of an epoch depend only on the seed and the epoch."""

from __future__ import annotations

import time
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
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers.base import Distiller
from bnn_itrd.errors import UserError
from bnn_itrd.quant import set_progress, start_epoch
from bnn_itrd.training.base import BaseTrainer
from bnn_itrd.training.evaluation import Evaluation, evaluate, kept_evaluation, to_keep
from bnn_itrd.training.fabric import steps_in_epoch
from bnn_itrd.training.metrics import loss_columns, positive_weights
from bnn_itrd.training.optimizer import MovingAverage, fixed_norms, learning_rate, make_optimizer
from bnn_itrd.training.progress import Progress
from bnn_itrd.training.step.compiling import CompiledForms, StepState, forms, use_fused_kernels
from bnn_itrd.training.step.images import StepImages, check_augmentation
from bnn_itrd.training.step.nonfinite import check_weights_finite
from bnn_itrd.training.step.objective import Objective
from bnn_itrd.training.step.teaching import make_teaching

__all__ = ["Trainer"]


# In seeds, epochs of the preparation count from this number, so that no epoch of the training has the same order.
_PREPARATION = 1 << 20


class Trainer(BaseTrainer):
    """Trains one network on images: a teacher, or a student with or without distillation.

    `student` is the network that is trained, and `teacher` the one it learns from, or None. `input_shape` is the
    (c, h, w) of an image. `labels` are those of all training images, (n,), for losses with a bank of features.
    """

    objective: Objective

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
        self.config, self.distill = train, distill
        memory = torch.channels_last if train.channels_last else torch.contiguous_format
        self.student = student.to(fabric.device, memory_format=memory)  # type: ignore[call-overload]
        self._fixed_norms = fixed_norms(self.student)
        # The copy for the moving average is made before hooks are put on the student, because they would be copied.
        self.ema: AveragedModel | None = None
        if train.ema is not None:
            self.ema = MovingAverage(self.student, train.ema)
        check_weights_finite("student", student)
        teacher, distillers = make_teaching(
            self.student, teacher, input_shape=input_shape, train=train, distill=distill, device=fabric.device,
            labels=labels,
        )  # fmt: skip
        unlabelled = labels is not None and bool((labels == UNLABELLED).any())
        check_augmentation(train, shape=input_shape, labels=labels, distillers=dict(distillers.items()))
        objective = Objective(
            self.student,
            teacher,
            distillers,
            ce_weight=distill.ce,
            label_smoothing=train.label_smoothing,
            unlabelled=unlabelled,
        )
        use_fused_kernels(self.student, train, device=fabric.device.type, say=fabric.print)
        self.forms = CompiledForms(forms(train, device=fabric.device.type, processes=fabric.world_size))
        optimizer = make_optimizer(train, objective)
        super().__init__(
            objective, optimizer, fabric, names=objective.names, seed=train.seed, clip_norm=train.clip_norm
        )
        self.final: Evaluation | None = None
        # After the last epoch: what the checkpoint saves of the last evaluation.
        self.kept_final: dict[str, Any] | None = None

    def step_target(self) -> nn.Module:
        """Returns the module that a step calls: the objective, compiled if the configuration asks for it."""
        if self.fabric.world_size > 1:
            distillers = self.objective.distillers.items()
            names = [f"distillers.{name}.{b}" for name, d in distillers for b in getattr(d, "replicated", ())]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.objective, names)
        return self.forms.apply(self.objective)

    def gradients(self, *batch: Any, synchronise: bool) -> list[Tensor]:
        """Computes the gradients of a batch; if compiled code fails in one of its first steps, without that code."""
        while self.forms.on_trial:
            before = StepState.of(self.objective, self.fabric.device)
            try:
                rest = super().gradients(*batch, synchronise=synchronise)
            except UserError:
                raise
            except Exception as error:  # a compiler's may be of any type; the step's own is raised again in eager mode
                self.fabric.print(self.forms.give_up(error))
                before.restore(self.objective, self.fabric.device)
                self.setup()
            else:
                self.forms.worked()
                return rest
        return super().gradients(*batch, synchronise=synchronise)

    # ---- the network that is evaluated and saved

    @property
    def kept(self) -> nn.Module:
        """The network that is evaluated and saved: the student, or the moving average of its weights."""
        return self.student if self.ema is None else self.ema.module

    def evaluate(self, data: ImageData) -> Evaluation:
        """Evaluates the network, not compiled, on the held-out images, or on the test images if there are none."""
        return evaluate(self.kept, data.held, device=self.fabric.device, channels_last=self.config.channels_last)

    def end(self, data: ImageData) -> Evaluation:
        """Returns the evaluation of the network after the last epoch, and makes one only if there is none yet.

        There is one if this process trained the last epoch, or if the checkpoint from which it continued has one that
        was made with the same weights and images.
        """
        if self.final is None:
            self.final = kept_evaluation(self.kept_final, self.kept, data.held) or self.evaluate(data)
        return self.final

    def evaluate_epoch(self, data: ImageData) -> dict[str, Any]:
        """Returns the columns of an evaluation for metrics.csv; they are None if the epoch is without evaluation."""
        config = self.config
        row: dict[str, Any] = {"split": "test" if data.val is None else "val"}
        row |= dict.fromkeys(("top1", "top5", "eval_loss"))
        if self.epoch % config.eval_every == 0 or self.epoch == config.epochs:
            set_progress(self.kept, self.epoch / config.epochs)
            final = self.final = self.evaluate(data)
            row |= {"top1": final.top1, "top5": final.top5, "eval_loss": final.loss}
            if self.epoch == config.epochs:
                self.kept_final = to_keep(final, self.kept, data.held)
        return row

    def share_buffers(self) -> None:
        """Copies the first process's running statistics, which the checkpoint has, to all other processes."""
        if self.fabric.world_size > 1:
            for buffer in self.kept.buffers():
                torch.distributed.broadcast(buffer, 0)

    # ---- the checkpoint

    def stateful(self) -> dict[str, Any]:
        return {**super().stateful(), "ema": self.ema}

    def state(self) -> dict[str, Any]:
        state = {"model": self.kept.state_dict(), **super().state(), "preparation": self.preparation}
        return state if self.kept_final is None else {**state, "final": self.kept_final}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.preparation = state.get("preparation", [])
        self.kept_final = state.get("final")

    # ---- the distillers' preparation

    @property
    def preparation_epochs(self) -> dict[str, int]:
        """Name of a distiller -> number of epochs in which it is trained before the training proper, if above 0."""
        lengths = {name: int(getattr(d, "preparation_epochs", 0)) for name, d in self.objective.distillers.items()}
        return {name: length for name, length in lengths.items() if length}

    def prepare_epoch(self, data: ImageData, progress: Progress) -> dict[str, Any]:
        """Trains one epoch of the preparation, before the training proper; returns its row of preparation.csv."""
        done = len(self.preparation)
        active = tuple(name for name, epochs in self.preparation_epochs.items() if done < epochs)
        set_progress(self.objective, 0.0)
        if any(getattr(self.objective.distillers[name], "prepares_student", False) for name in active):
            start_epoch(self.student)
        self.objective.preparing = active
        self.forms.begin()
        try:
            return self._pass(data, progress, number=done, preparing=True)
        finally:
            self.objective.preparing = ()

    def _preparation_lr(self) -> float:
        """Returns the learning rate of the epochs before the training: the distillers', or else the training's."""
        rates = (getattr(self.objective.distillers[name], "preparation_lr", None) for name in self.objective.preparing)
        return next((float(rate) for rate in rates if rate is not None), self.config.lr)

    def end_preparation(self) -> None:
        """Ends the preparation, the epochs before the training: freezes layers that are not trained any more."""
        self.forms.begin()
        for distiller in self.objective.distillers.values():
            if isinstance(distiller, Distiller) and distiller.preparation_epochs:
                distiller.prepared()
        if self.preparation_epochs and self.fabric.world_size > 1:
            # It is set up again, because DistributedDataParallel would wait for gradients of parameters frozen now.
            self.setup()

    # ---- an epoch

    def begin_pass(self, epoch: int) -> None:
        super().begin_pass(epoch)
        for norm in self._fixed_norms.values():
            norm.eval()

    def train_epoch(self, data: ImageData, progress: Progress) -> dict[str, Any]:
        """Trains one epoch and returns its row of metrics.csv; it waits for the device only at the end."""
        before = positive_weights(self.student)
        start_epoch(self.student)
        row = self._pass(data, progress, number=self.epoch, preparing=False)
        if (after := positive_weights(self.student)) is not None and before is not None:
            row["sign_flips"] = 100 * float((before != after).float().mean())
        return row

    def _before_step(self, step: int, steps_per_epoch: int) -> float:
        """Returns a step's learning rate, and sets its annealing and the distillers' scheduled weights."""
        config = self.config
        steps = config.epochs * steps_per_epoch
        set_progress(self.objective, step / steps)
        methods = self.distill.methods
        if any(method.scheduled for method in methods.values()):
            epoch = step / steps_per_epoch
            factors = [methods[n].factor(epoch, config.epochs) if n in methods else 1.0 for n in self.objective.names]
            self.objective.factors.copy_(torch.tensor(factors), non_blocking=True)
        return learning_rate(
            step,
            steps=steps,
            warmup=round(config.warmup * steps_per_epoch),
            peak=config.lr,
            schedule=config.schedule,
            drops=[m * steps_per_epoch for m in config.milestones],
            decay=config.decay,
        )

    def _pass(self, data: ImageData, progress: Progress, *, number: int, preparing: bool) -> dict[str, Any]:
        """Trains on all images once; returns the epoch's row of metrics.csv, or of preparation.csv if `preparing`.

        `number` is the epoch's number, from 0, in the training or in the preparation before it.
        """
        config, fabric = self.config, self.fabric
        steps_per_epoch = steps_in_epoch(config, len(data.train), fabric.world_size)
        epoch = _PREPARATION + number if preparing else number
        self.begin_pass(epoch)
        own = config.batch_size // fabric.world_size
        # Of each step the parts of its loss, the number of right answers, and that of images with a label.
        steps = torch.zeros(steps_per_epoch, len(self.names) + 2, device=fabric.device)
        steps[:, -1] = own
        started = time.perf_counter()
        batches = data.train.train_batches(
            config.batch_size, seed=config.seed, epoch=epoch, device=fabric.device, rank=fabric.global_rank,
            world=fabric.world_size,
        )  # fmt: skip
        augmented = StepImages(config, data, fabric.device, rank=fabric.global_rank)
        lr = self._preparation_lr() if preparing else config.lr
        source = augmented.epoch(batches, epoch, steps=steps_per_epoch, batch=own)
        for i, (images, labels, indices, mixed) in enumerate(source):
            step = number * steps_per_epoch + i
            if not preparing:
                lr = self._before_step(step, steps_per_epoch)
            batch = (images, labels, indices) if mixed is None else (images, labels, indices, mixed)
            if self.forms.uses_cuda_graphs:
                torch.compiler.cudagraph_mark_step_begin()
            # In a preparation many parameters have no gradient; DistributedDataParallel would wait for them.
            parts, correct = self.step(*batch, lr=lr, synchronise=not preparing)
            if self.ema is not None and not preparing:
                self.ema.update_parameters(self.student)
            steps[i, :-2] = parts
            steps[i, -2] = correct
            if self.objective.unlabelled:
                steps[i, -1] = (labels != UNLABELLED).sum()
            progress.step(i + 1, parts)
        self.non_finite.record(number * steps_per_epoch, steps[:, :-2])
        sums = steps.sum(0)
        if fabric.world_size > 1:
            torch.distributed.all_reduce(sums)
            sums[:-2] /= fabric.world_size
        *losses, right, labelled_seen = sums.tolist()
        seconds = time.perf_counter() - started
        shown = self.objective.preparing if preparing else self.names
        return {
            "epoch": number + 1,
            "lr": lr,
            **loss_columns(self.names, losses, steps_per_epoch, shown=shown),
            **({} if preparing else {"train_top1": 100 * right / max(1, labelled_seen)}),
            "seconds": seconds,
            "images_per_s": steps_per_epoch * config.batch_size / seconds,
            **({} if preparing else self.objective.watch(images)),
        }
