"""Every setting, as frozen dataclasses. The command line, the recipes and the run folders all hold these."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from bnn_itrd.distill_config import METHODS, DistillConfig, ITRDConfig, KDConfig
from bnn_itrd.errors import UserError, require

__all__ = [
    "DataConfig",
    "DistillConfig",
    "FabricConfig",
    "ITRDConfig",
    "KDConfig",
    "LogConfig",
    "MemberConfig",
    "NetworkConfig",
    "RunConfig",
    "SchemeConfig",
    "TrainConfig",
    "differences",
    "flatten",
    "member_config",
    "to_dict",
]


@dataclass(frozen=True)
class DataConfig:
    """Which images.

    Args:
        name: data set: digits (embedded), cifar10, cifar100, stl10, tiny-imagenet, imagenet, mit67, cub200, or folder
            (your own images, one folder per class)
        root: where it lies: an .npz, the folder of torchvision's download, or an image folder
        download: let torchvision fetch cifar10, cifar100 or stl10 into root
        val_fraction: share of the training images held out for choosing things, in [0, 1)
        per_class: train on that many images of each class (those not held out); all by default
        per_class_seed: which ones: more images with the same seed include the fewer
        unlabelled: train on the other images too, without their labels: only distillers learn from those
        image_size: height and width the images are brought to; their own size by default
        crop_padding: pixels of zero padding before the random crop of small images; 0: no crop
        flip: mirror images at random
        workers: processes that read large images from disk
    """

    name: str = "digits"
    root: str | None = None
    download: bool = False
    val_fraction: float = 0.0
    per_class: int | None = None
    per_class_seed: int = 0
    unlabelled: bool = False
    image_size: int | None = None
    crop_padding: int = 4
    flip: bool = True
    workers: int = 2

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, "data.val_fraction", "in [0, 1)", self.val_fraction)
        require(self.per_class is None or self.per_class >= 1, "data.per_class", ">= 1", self.per_class)
        rule = "false without data.per_class, which says how many keep their labels"
        require(not self.unlabelled or self.per_class is not None, "data.unlabelled", rule, self.unlabelled)
        require(0 <= self.per_class_seed < 2**31, "data.per_class_seed", "in [0, 2^31)", self.per_class_seed)
        require(self.crop_padding >= 0, "data.crop_padding", ">= 0", self.crop_padding)
        require(self.workers >= 0, "data.workers", ">= 0", self.workers)
        size = self.image_size
        require(size is None or size >= 1, "data.image_size", ">= 1", size)


@dataclass(frozen=True)
class NetworkConfig:
    """The definition a teacher and its students share. The options that change the binary form only say so.

    Args:
        name: resnet18, 34, 50; resnet8, 14, 20, 32, 44, 56, 110; resnet8x4, resnet32x4; wrn_16_1, 16_2, 40_1, 40_2;
            vgg8, 11, 13, 16, 19; vgg_small; mobilenet_v2, mobilenet_v2_half; shufflenet_v1, shufflenet_v2;
            torchvision:NAME or timm:NAME: that library's, untrained, made binary by `quant.binarize`
        teacher: the teacher's network where it is another one; students and teacher then share the width alone
        width: a factor on the number of channels of teacher and students (not of vgg_small and shufflenet_v1)
        per_conv: students: one shortcut per convolution; the network's published form by default
        float_downsample: students: average pool and a full-precision 1x1 convolution where the shape changes
        padding_value: students: what the borders hold after the sign: 0, +1 or -1
        shortcut: students: projection, pad, avgpool or binary; the network's own by default (residual networks)
        teacher_shortcut: teacher: pad, projection or avgpool; the network's own by default (residual networks). In the
            folder of one member: that network's, where it is in full precision
        residual_bits: students: bits of the residual stream's integers, 2 to 8; floats by default
        first_last_bits: students: bits of the first convolution and the classifier, 2 to 8; floats by default
    """

    name: str = "resnet20"
    width: float = 1.0
    per_conv: bool | None = None
    float_downsample: bool = False
    padding_value: int = 0
    shortcut: str | None = None
    residual_bits: int | None = None
    first_last_bits: int | None = None
    teacher_shortcut: str | None = None
    teacher: str | None = None

    def __post_init__(self) -> None:
        require(self.width > 0, "network.width", "> 0", self.width)
        require(self.padding_value in (-1, 0, 1), "network.padding_value", "-1, 0 or 1", self.padding_value)
        for name in ("residual_bits", "first_last_bits"):
            bits = getattr(self, name)
            require(bits is None or 2 <= bits <= 8, f"network.{name}", "in [2, 8]", bits)

    def of_teacher(self) -> NetworkConfig:
        """The teacher's definition by itself."""
        if self.teacher is None:
            return self
        return NetworkConfig(name=self.teacher, width=self.width, teacher_shortcut=self.teacher_shortcut)

    def of_students(self, *, binary: bool) -> NetworkConfig:
        """The students' definition by itself. Raises UserError on an option that full precision does not have."""
        if binary:
            return self if self.teacher is None else dataclasses.replace(self, teacher=None, teacher_shortcut=None)
        alone = NetworkConfig(name=self.name, width=self.width, teacher_shortcut=self.shortcut)
        for field_ in dataclasses.fields(self):
            given = field_.name not in ("name", "width", "shortcut", "teacher_shortcut", "teacher")
            if given and getattr(self, field_.name) != field_.default:
                raise UserError(f"network.{field_.name} is an option of binary students, and scheme.binary is false")
        return alone


def _tau(weight: str) -> tuple[float, float]:
    """First and last tau as published; `quant.Scheme` has the same (a test says so), without whose torch this loads."""
    return {"biper": (0.0468, 0.0468), "biper_sine": (0.037, 0.037)}.get(weight, (0.85, 0.99))


@dataclass(frozen=True)
class SchemeConfig:
    """How the students are binarised: weights and activations apart.

    Args:
        binary: false: students in full precision; nothing else here then has a meaning
        weight: recu, xnor, irnet, rbnn, bireal, siman, adabin, biper or reste; real and biper_sine are first stages
        activation: recu, clipped, polynomial, irnet, rbnn, siman, rsign, adabin or reste
        tau_min: recu: tau at the start of training, in (0.5, 1); biper: weight of its penalty at the start; by default
            what is published for the weight
        tau_max: recu, biper: the same at the end
        t_min: irnet, rbnn, adabin: sharpness of the surrogate gradient at the start
        t_max: irnet, rbnn, adabin: the same at the end
        omega: biper: frequency
        o_max: reste: the last exponent
        centre: rbnn and siman activations subtract the mean of each sample, which cannot be exported
        rad: weight of RAD's penalty on the distribution of activations; 2 is the published one
        rad_until: progress in [0, 1] at which it ends
        nonlinearity: hardtanh or rprelu, between the layers
        first_stage: real or biper_sine: weights of a first stage of training, whose network the second one begins with
        first_stage_epochs: its length; 0: one stage
    """

    weight: str = "recu"
    activation: str = "recu"
    tau_min: float | None = None
    tau_max: float | None = None
    t_min: float = 1e-2
    t_max: float = 10.0
    omega: float = 20.0
    o_max: float = 3.0
    centre: bool = False
    rad: float = 0.0
    rad_until: float = 0.9
    nonlinearity: str = "hardtanh"
    first_stage: str = "real"
    first_stage_epochs: int = 0
    binary: bool = True

    def __post_init__(self) -> None:
        rule = "0 with scheme.binary false"
        require(self.binary or not self.first_stage_epochs, "scheme.first_stage_epochs", rule, self.first_stage_epochs)
        require(self.first_stage_epochs >= 0, "scheme.first_stage_epochs", ">= 0", self.first_stage_epochs)

    def resolved(self) -> SchemeConfig:
        """With the published tau where none is given: numbers, so that a run does not change with the version."""
        first, last = _tau(self.weight)
        tau_min = first if self.tau_min is None else self.tau_min
        return dataclasses.replace(self, tau_min=tau_min, tau_max=last if self.tau_max is None else self.tau_max)

    def of_first_stage(self) -> SchemeConfig:
        """Binary activations as here and the first stage's weights, with their own tau where ours is published."""
        made = dataclasses.replace(self, weight=self.first_stage, first_stage_epochs=0)
        if (self.tau_min, self.tau_max) == _tau(self.weight):
            made = dataclasses.replace(made, tau_min=None, tau_max=None)
        return made.resolved()


@dataclass(frozen=True)
class TrainConfig:
    """One training.

    Args:
        epochs: passes over the training images
        batch_size: images per step, over all processes together
        optimizer: sgd or adamw
        lr: peak learning rate, reached after the warm-up
        schedule: of the learning rate after the warm-up: cosine to 0, or step: times `decay` at each milestone
        milestones: step: the epochs after which the learning rate falls
        decay: step: what it is multiplied with, in (0, 1]
        momentum: sgd
        nesterov: sgd
        weight_decay: L2, on every parameter as the published recipes have it
        warmup_epochs: epochs of linear warm-up; by default a tenth of all, 5 at the most
        label_smoothing: of the cross-entropy, in [0, 1)
        ema: decay of an exponential moving average of the weights, which is then the network that is kept
        clip_norm: largest norm of the gradient
        precision: 32-true, bf16-mixed or 16-mixed; accuracy is always evaluated in float32
        compile: torch.compile the training step
        compile_mode: of torch.compile; reduce-overhead replays CUDA graphs, for steps that a GPU ends before their
            kernels are launched (small networks, small batches)
        channels_last: memory format of images and convolutions
        eval_every: epochs between evaluations; the last epoch is always evaluated
        seed: of the initial weights, the order of the images and their augmentation
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
    warmup_epochs: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    clip_norm: float | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    compile_mode: Literal["reduce-overhead", "max-autotune"] | None = None
    channels_last: bool = False
    eval_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "train.epochs", ">= 1", self.epochs)
        require(self.batch_size >= 1, "train.batch_size", ">= 1", self.batch_size)
        require(self.lr > 0, "train.lr", "> 0", self.lr)
        if self.schedule == "step":
            rising = all(a < b for a, b in pairwise((0, *self.milestones, self.epochs)))
            rule = f"whole numbers that rise within (0, epochs) = (0, {self.epochs})"
            require(rising, "train.milestones", rule, list(self.milestones))
        require(0 < self.decay <= 1, "train.decay", "in (0, 1]", self.decay)
        require(0 <= self.momentum < 1, "train.momentum", "in [0, 1)", self.momentum)
        require(self.weight_decay >= 0, "train.weight_decay", ">= 0", self.weight_decay)
        rule = f"in [0, epochs) = [0, {self.epochs}): give a shorter one with fewer epochs"
        require(0 <= self.warmup < self.epochs, "train.warmup_epochs", rule, self.warmup_epochs)
        require(not (self.nesterov and self.momentum == 0), "train.momentum", "> 0 with nesterov", self.momentum)
        require(0 <= self.label_smoothing < 1, "train.label_smoothing", "in [0, 1)", self.label_smoothing)
        require(self.ema is None or 0 <= self.ema < 1, "train.ema", "in [0, 1)", self.ema)
        require(self.clip_norm is None or self.clip_norm > 0, "train.clip_norm", "> 0", self.clip_norm)
        require(self.compile or self.compile_mode is None, "train.compile", "true with compile_mode", self.compile)
        require(self.eval_every >= 1, "train.eval_every", ">= 1", self.eval_every)
        require(0 <= self.seed < 2**31, "train.seed", "in [0, 2^31)", self.seed)

    @property
    def warmup(self) -> float:
        """Epochs of warm-up, as given or by default."""
        return min(5.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs

    def of_length(self, epochs: int) -> TrainConfig:
        """The same training over another number of epochs, its milestones in proportion. Raises UserError."""
        scaled = sorted({m * epochs // self.epochs for m in self.milestones} - {0})
        return dataclasses.replace(self, epochs=epochs, milestones=tuple(scaled))


@dataclass(frozen=True)
class FabricConfig:
    """Where it runs (Lightning Fabric's own settings).

    Args:
        accelerator: cpu, cuda, mps or auto
        devices: how many processes (devices) on each node
        num_nodes: how many machines
        strategy: auto, ddp, ...
        threads: CPU threads per process; all cores by default
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        require(self.devices >= 1, "fabric.devices", ">= 1", self.devices)
        require(self.num_nodes >= 1, "fabric.num_nodes", ">= 1", self.num_nodes)
        require(self.threads is None or self.threads >= 1, "fabric.threads", ">= 1", self.threads)


@dataclass(frozen=True)
class LogConfig:
    """What is shown and kept besides the CSV.

    Args:
        tensorboard: write TensorBoard event files
        progress: a progress bar on a terminal
    """

    tensorboard: bool = True
    progress: bool = True


def _default_students() -> dict[str, DistillConfig]:
    return {"recu": DistillConfig(), "recu-itrd": DistillConfig(itrd=ITRDConfig())}


@dataclass(frozen=True)
class RunConfig:
    """A whole comparison: a teacher, and students of one definition trained in different ways.

    Args:
        data: which images
        network: the definition teacher and students share, or the students' and another one for the teacher
        scheme: how the students are binarised
        teacher_train: the teacher's training
        train: every student's training
        students: name -> what that student learns from
        teacher: reuse a trained teacher: a run folder, torchvision:NAME or timm:NAME
        teacher_weights: file with the state dict of a torchvision or timm teacher
        fabric: devices and processes
        log: what is shown and kept
    """

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    scheme: SchemeConfig = field(default_factory=SchemeConfig)
    teacher_train: TrainConfig = field(default_factory=TrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    students: dict[str, DistillConfig] = field(default_factory=_default_students)
    teacher: str | None = None
    teacher_weights: str | None = None
    fabric: FabricConfig = field(default_factory=FabricConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        for name in self.students:
            plain = name.replace("-", "").replace("_", "").replace(".", "")
            if not plain.isalnum() or name == "teacher":
                raise UserError(
                    f"students: {name!r} cannot name a student: it becomes a folder beside 'teacher'; "
                    "use letters, digits, '-', '_' and '.'"
                )
        self.network.of_students(binary=self.scheme.binary)
        rule = "given with a teacher, torchvision:NAME or timm:NAME"
        require(self.teacher_weights is None or self.teacher is not None, "teacher_weights", rule, self.teacher_weights)


@dataclass(frozen=True)
class MemberConfig:
    """One network of a run: what its own folder's config.yaml holds. `scheme` is None for full precision."""

    name: str
    data: DataConfig
    network: NetworkConfig
    scheme: SchemeConfig | None
    train: TrainConfig
    distill: DistillConfig
    fabric: FabricConfig
    log: LogConfig

    def of_first_stage(self) -> MemberConfig | None:
        """The first of two stages of training, None where there is one. Raises UserError on a schedule too long."""
        if self.scheme is None or not self.scheme.first_stage_epochs:
            return None
        train = self.train.of_length(self.scheme.first_stage_epochs)
        return dataclasses.replace(self, scheme=self.scheme.of_first_stage(), train=train)


def member_config(run: RunConfig, name: str) -> MemberConfig:
    """The part of a run that concerns one member: 'teacher' or a student's name. Raises UserError on another."""
    scheme: SchemeConfig | None = None
    if name == "teacher":
        network, train, distill = run.network.of_teacher(), run.teacher_train, DistillConfig()
    elif name in run.students:
        network, train, distill = run.network.of_students(binary=run.scheme.binary), run.train, run.students[name]
        scheme = run.scheme if run.scheme.binary else None
    else:
        from bnn_itrd.errors import unknown

        raise unknown("member", name, ["teacher", *run.students])
    return MemberConfig(name, run.data, network, scheme, train, distill, run.fabric, run.log)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of a configuration: what is written to YAML and into checkpoints."""
    result: dict[str, Any] = dataclasses.asdict(config)
    return result


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty mapping stays as a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            # A file gives a tuple back as a list.
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


# A resumed run may move to another place or machine; its numbers may not change.
_FREE = ("data.root", "data.download", "data.workers", "fabric.", "log.")


_GROUPS = {"data": DataConfig, "network": NetworkConfig, "scheme": SchemeConfig, "train": TrainConfig}


def _defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Of the groups that a saved configuration has: a field it lacks, of a later version, had this value."""
    groups = {group: to_dict(kind()) for group, kind in _GROUPS.items() if isinstance(saved.get(group), Mapping)}
    distill = saved.get("distill")
    if isinstance(distill, Mapping):
        methods = {name: kind for name, kind in METHODS.items() if isinstance(distill.get(name), Mapping)}
        groups["distill"] = {name: to_dict(kind()) for name, kind in methods.items()}
    return flatten(groups)


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """One line per field that differs between two configurations and may not: ``train.lr: 0.1 there, 0.2 given``."""
    new = flatten(given)
    old = {key: value for key, value in _defaults(saved).items() if key in new} | flatten(saved)
    lines = []
    for key in sorted(old.keys() | new.keys()):
        if key.startswith(_FREE) or old.get(key) == new.get(key):
            continue
        lines.append(f"{key}: {old.get(key, 'absent')!r} there, {new.get(key, 'absent')!r} given")
    return lines
