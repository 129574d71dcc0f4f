"""The settings of a whole run, and of one network of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.distillers.representation.itrd import ITRDConfig
from bnn_itrd.errors import UserError, require, unknown

__all__ = ["MemberConfig", "RunConfig", "check_student_name", "member_config"]


def _default_students() -> dict[str, DistillConfig]:
    return {"recu": DistillConfig(), "recu-itrd": DistillConfig(itrd=ITRDConfig())}


def check_student_name(name: object) -> None:
    """Raises UserError unless a student can have this name; YAML reads an unquoted 1, null or true as no text."""
    if not isinstance(name, str):
        raise UserError(f"students: the name {name!r} is no text: put it in quotes, or use letters")
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not plain.isalnum() or name == "teacher":
        raise UserError(
            f"students: {name!r} cannot be a student's name, which is also that of its folder: use letters, digits, "
            "'-', '_' and '.', and not 'teacher'"
        )


@dataclass(frozen=True)
class RunConfig:
    """The settings of a whole run: a teacher, and students of the same network that learn in different ways.

    >>> run = RunConfig(train=TrainConfig(epochs=20, max_seconds=600.0))
    >>> list(run.students), run.max_seconds
    (['recu', 'recu-itrd'], 600.0)

    Raises UserError: a student's name that no folder can have, fields that do not fit each other.

    Args:
        data: the images
        network: the network of teacher and students
        scheme: how the students are binarised
        teacher_train: the teacher's training
        train: every student's training
        students: name -> what that student learns from
        teacher: reuse a trained teacher: a run folder, torchvision:NAME or timm:NAME
        teacher_weights: file with the state dict of a torchvision or timm teacher
        teacher_normalization: normalise the teacher's images with the mean and std of its own training (own), or with
            those of the data (data)
        fabric: devices and processes
        log: progress and event files
    """

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    scheme: SchemeConfig = field(default_factory=SchemeConfig)
    teacher_train: TrainConfig = field(default_factory=TrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    students: dict[str, DistillConfig] = field(default_factory=_default_students)
    teacher: str | None = None
    teacher_weights: str | None = None
    teacher_normalization: str = "own"
    fabric: FabricConfig = field(default_factory=FabricConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        for name in self.students:
            check_student_name(name)
        self.network.of_students(binary=self.scheme.binary)
        if self.students and self.scheme.first_stage_epochs:
            self.train.of_first_stage(self.scheme.first_stage_epochs)
        rule = "given with a teacher, torchvision:NAME or timm:NAME"
        require(self.teacher_weights is None or self.teacher is not None, "teacher_weights", rule, self.teacher_weights)
        of_teacher = self.teacher_normalization
        require(of_teacher in ("own", "data"), "teacher_normalization", "own or data", of_teacher)
        require(of_teacher == "own" or self.teacher is not None, "teacher_normalization", rule, of_teacher)

    @property
    def max_seconds(self) -> float | None:
        """The time limit of the whole command in seconds: the shorter of the trainings' limits, or None."""
        return min((t.max_seconds for t in (self.teacher_train, self.train) if t.max_seconds is not None), default=None)


@dataclass(frozen=True)
class MemberConfig:
    """The settings of one network of a run, as in config.yaml of its folder; `scheme` is None for full precision.

    >>> member_config(RunConfig(), "recu-itrd").needs_teacher
    True
    """

    name: str
    data: DataConfig
    network: NetworkConfig
    scheme: SchemeConfig | None
    train: TrainConfig
    distill: DistillConfig
    fabric: FabricConfig
    log: LogConfig

    @property
    def needs_teacher(self) -> bool:
        """Whether the network learns from a teacher, or begins with a teacher's weights."""
        return self.distill.needs_teacher or (self.scheme is not None and self.scheme.from_teacher)

    def of_first_stage(self) -> MemberConfig | None:
        """Returns the settings of the first of two training stages; None if there is one stage.

        Raises UserError if the warm-up is longer than the first stage.
        """
        if self.scheme is None or not self.scheme.first_stage_epochs:
            return None
        train = self.train.of_first_stage(self.scheme.first_stage_epochs)
        return dataclasses.replace(self, scheme=self.scheme.of_first_stage(), train=train)


def member_config(run: RunConfig, name: str) -> MemberConfig:
    """Returns the settings of one network of a run: 'teacher' or a student's name. Raises UserError on another name.

    >>> member_config(RunConfig(), "teacher").scheme is None
    True
    """
    scheme: SchemeConfig | None = None
    if name == "teacher":
        network, train, distill = run.network.of_teacher(), run.teacher_train, DistillConfig()
    elif name in run.students:
        network, train, distill = run.network.of_students(binary=run.scheme.binary), run.train, run.students[name]
        scheme = run.scheme if run.scheme.binary else None
    else:
        raise unknown("member", name, ["teacher", *run.students])
    return MemberConfig(name, run.data, network, scheme, train, distill, run.fabric, run.log)
