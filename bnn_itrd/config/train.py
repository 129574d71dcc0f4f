"""The settings of a training, of the devices that it runs on, and of its logs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bnn_itrd.errors import FieldError, require
from bnn_itrd.words import counted

__all__ = ["MOST_EPOCHS", "FabricConfig", "LogConfig", "TrainConfig", "check_warmup", "scaled_milestones"]

# More epochs would never end, and the count of steps would leave the range of 64-bit integers.
MOST_EPOCHS = 1_000_000
_MOST_PROCESSES = 4096


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training: its epochs, optimiser, learning rate, augmentation and precision.

    >>> TrainConfig(epochs=200, lr=0.05).warmup
    5.0

    Raises FieldError if a value is out of its range, or does not fit the others.

    Args:
        epochs: passes over the training images
        batch_size: images per step, over all processes together
        optimizer: sgd or adamw
        lr: peak learning rate, reached after the warm-up
        schedule: learning rate after the warm-up: cosine, which falls to 0, or step, which multiplies it by `decay` at
            each milestone
        milestones: with step: the epochs after which the learning rate falls
        decay: with step: the factor on the learning rate, in (0, 1]
        momentum: momentum of sgd
        nesterov: use Nesterov's momentum with sgd
        weight_decay: factor of the L2 penalty
        weight_decay_of: parameters that have weight decay: all, as in the published recipes, or weights, which means
            those of convolutions and linear layers, without BatchNorm, biases, scales and thresholds
        warmup_epochs: epochs of linear warm-up; by default a tenth of all, 5 at the most
        label_smoothing: label smoothing of the cross-entropy, in [0, 1)
        trivial_augment: apply TrivialAugment before cutout, mixup and cutmix: one random operation for each image
        cutout: side in pixels of a square of each image that is set to the mean; 16 is published for CIFAR-10
        mixup: alpha of mixup, which mixes images and labels in pairs by shares from Beta(alpha, alpha); 0: no mixup
        cutmix: alpha of cutmix, which fills a box of one image from another; with mixup too, each step does one of the
            two; 0: no cutmix
        ema: decay of an exponential moving average of the weights; the averaged network is then the one that is saved
        clip_norm: largest norm of the gradient; no limit by default
        precision: 32-true, bf16-mixed, 16-mixed, or auto, which chooses for the device; accuracy is always evaluated
            in float32
        compile: compile the training step with torch.compile
        compile_mode: mode of torch.compile: reduce-overhead (which replays CUDA graphs), max-autotune, or null for
            torch's default; auto: reduce-overhead on one CUDA device, and torch's default elsewhere or where that fails
        fused_kernels: compute ReCU's activations and weights in Triton kernels on a CUDA device, with the same values
            to rounding; no effect on other devices
        channels_last: use the memory format channels_last for images and convolutions
        eval_every: epochs between evaluations; the last epoch is always evaluated
        checkpoint_seconds: least number of seconds between two checkpoints; one is also written after the first epoch,
            at the end, and when a signal ends the training
        max_seconds: time limit in seconds of the whole command, for teacher and students together. It ends before an
            epoch that would not finish in time, and the same command continues later. No limit by default
        seed: seed of the initial weights, the order of the images and their augmentation
    """

    epochs: int = 60
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[int, ...] = (150, 180, 210)
    decay: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    weight_decay_of: Literal["all", "weights"] = "all"
    warmup_epochs: float | None = None
    label_smoothing: float = 0.0
    trivial_augment: bool = False
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float | None = None
    clip_norm: float | None = None
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    compile_mode: Literal["auto", "reduce-overhead", "max-autotune"] | None = "auto"
    fused_kernels: bool = False
    channels_last: bool = False
    eval_every: int = 1
    checkpoint_seconds: float = 30.0
    max_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "train.epochs", ">= 1", self.epochs)
        require(self.epochs <= MOST_EPOCHS, "train.epochs", f"<= {MOST_EPOCHS}", self.epochs)
        require(self.batch_size >= 1, "train.batch_size", ">= 1", self.batch_size)
        require(self.lr > 0, "train.lr", "> 0", self.lr)
        if self.schedule == "step":
            rising = all(a < b for a, b in pairwise((0, *self.milestones, self.epochs)))
            if not rising:
                problem = f"must be whole numbers that rise within (0, epochs) = (0, {self.epochs})"
                fits = [self.epochs // 2, 3 * self.epochs // 4] if self.epochs >= 4 else None
                raise FieldError("train.milestones", problem, got=list(self.milestones), fits=fits)
        require(0 < self.decay <= 1, "train.decay", "in (0, 1]", self.decay)
        require(0 <= self.momentum < 1, "train.momentum", "in [0, 1)", self.momentum)
        require(self.weight_decay >= 0, "train.weight_decay", ">= 0", self.weight_decay)
        require(self.warmup >= 0, "train.warmup_epochs", ">= 0", self.warmup_epochs)
        check_warmup(self.warmup, self.epochs, "training")
        require(not (self.nesterov and self.momentum == 0), "train.momentum", "> 0 with nesterov", self.momentum)
        require(0 <= self.label_smoothing < 1, "train.label_smoothing", "in [0, 1)", self.label_smoothing)
        for name in ("cutout", "mixup", "cutmix"):
            require(0 <= getattr(self, name) < 1e4, f"train.{name}", "in [0, 10000)", getattr(self, name))
        require(self.ema is None or 0 <= self.ema < 1, "train.ema", "in [0, 1)", self.ema)
        require(self.clip_norm is None or self.clip_norm > 0, "train.clip_norm", "> 0", self.clip_norm)
        named = self.compile_mode not in ("auto", None)
        require(self.compile or not named, "train.compile", "true with compile_mode", self.compile)
        require(self.eval_every >= 1, "train.eval_every", ">= 1", self.eval_every)
        require(self.checkpoint_seconds >= 0, "train.checkpoint_seconds", ">= 0", self.checkpoint_seconds)
        require(self.max_seconds is None or self.max_seconds > 0, "train.max_seconds", "> 0", self.max_seconds)
        require(0 <= self.seed < 2**31, "train.seed", "in [0, 2^31)", self.seed)

    @property
    def warmup(self) -> float:
        """The length of the warm-up in epochs: `warmup_epochs` or, if that is None, a tenth of all, 5 at the most."""
        return min(5.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs

    @property
    def mixes(self) -> bool:
        """Whether training mixes images and labels in pairs, by mixup or cutmix."""
        return self.mixup > 0 or self.cutmix > 0

    def of_first_stage(self, epochs: int) -> TrainConfig:
        """Returns the settings of the first of two training stages, which has `epochs` epochs and scaled milestones.

        >>> TrainConfig(epochs=240, schedule="step").of_first_stage(80).milestones
        (50, 60, 70)

        Raises FieldError if `warmup_epochs` is set, which applies to both stages, and is too long for the first.
        """
        if self.warmup_epochs is not None:
            check_warmup(self.warmup_epochs, epochs, "first stage")
        milestones = scaled_milestones(self.milestones, epochs, self.epochs)
        return dataclasses.replace(self, epochs=epochs, milestones=milestones)


def scaled_milestones(milestones: tuple[int, ...], epochs: int, of: int) -> tuple[int, ...]:
    """Returns the milestones of a training of `of` epochs, scaled to one of `epochs`; those that become 0 are left out.

    >>> scaled_milestones((1, 150, 180), 20, 200)
    (15, 18)
    """
    return tuple(sorted({m * epochs // of for m in milestones} - {0}))


def check_warmup(warmup: float, epochs: int, what: str) -> None:
    """Raises FieldError if a warm-up is not shorter than its training of `epochs` epochs; what: the training's name."""
    if warmup >= epochs:
        problem = f"is {warmup:g} but the {what} has {counted(epochs, 'epoch')}: it must be shorter"
        raise FieldError("train.warmup_epochs", problem, fits=epochs // 2 if epochs > 1 else 0.5)


@dataclass(frozen=True)
class FabricConfig:
    """The settings of devices and processes; all but `threads` are passed to Lightning Fabric under the same names.

    >>> FabricConfig(accelerator="cpu", threads=2).devices
    1

    Raises FieldError if a number is out of its range.

    Args:
        accelerator: cpu, cuda, mps or auto
        devices: number of processes (devices) on each machine
        num_nodes: number of machines
        strategy: how several processes train one network: auto, ddp, or another strategy of Lightning Fabric
        threads: CPU threads per process; by default one for each core, or for each CPU that the container may use
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "threads"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"fabric.{name}", ">= 1", value)
            require(value is None or value <= _MOST_PROCESSES, f"fabric.{name}", f"<= {_MOST_PROCESSES}", value)


@dataclass(frozen=True)
class LogConfig:
    """The settings of a training's logs; metrics.csv is always written.

    >>> LogConfig(progress=False).tensorboard
    True

    Args:
        tensorboard: write TensorBoard event files
        progress: show a progress bar on a terminal
    """

    tensorboard: bool = True
    progress: bool = True
