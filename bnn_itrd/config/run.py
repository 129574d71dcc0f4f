"""A whole comparison, and the part of it that concerns one network."""

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
    """Raises UserError unless a student can have this name: YAML reads an unquoted 1, null or true as another value."""
    if not isinstance(name, str):
        raise UserError(f"students: the name {name!r} is no text: put it in quotes, or use letters")
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not plain.isalnum() or name == "teacher":
        raise UserError(
            f"students: {name!r} cannot name a student: it becomes a folder beside 'teacher'; "
            "use letters, digits, '-', '_' and '.'"
        )


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
        teacher_normalization: it sees images under its library's mean and std (own), or under the data's (data)
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
        """The time that the command has, the shorter of the two where both trainings say one."""
        return min((t.max_seconds for t in (self.teacher_train, self.train) if t.max_seconds is not None), default=None)


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

    @property
    def needs_teacher(self) -> bool:
        """Whether it learns from a teacher, or begins with a teacher's weights."""
        return self.distill.needs_teacher or (self.scheme is not None and self.scheme.from_teacher)

    def of_first_stage(self) -> MemberConfig | None:
        """The first of two stages of training, None where there is one. Raises UserError on a schedule too long."""
        if self.scheme is None or not self.scheme.first_stage_epochs:
            return None
        train = self.train.of_first_stage(self.scheme.first_stage_epochs)
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
        raise unknown("member", name, ["teacher", *run.students])
    return MemberConfig(name, run.data, network, scheme, train, distill, run.fabric, run.log)
