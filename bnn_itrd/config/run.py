"""The settings of a whole run (a teacher and its students), and those of a single network of a run."""

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
    """Raises UserError if a student cannot have this name.

    The name may be no text, because YAML reads an unquoted 1, null or true as another type.
    """
    if not isinstance(name, str):
        raise UserError(f"students: the name {name!r} is no text: put it in quotes, or use letters")
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not plain.isalnum() or name == "teacher":
        raise UserError(
            f"students: {name!r} cannot be a student's name, because its folder gets the same name: use letters, "
            "digits, '-', '_' and '.', and not 'teacher'"
        )


@dataclass(frozen=True)
class RunConfig:
    """The settings of a whole run: a teacher, and students that share one network and learn from different distillers.

    >>> run = RunConfig(train=TrainConfig(epochs=20, max_seconds=600.0))
    >>> list(run.students), run.max_seconds
    (['recu', 'recu-itrd'], 600.0)

    Raises UserError if no folder can have a student's name, or if two fields do not fit each other.

    Args:
        data: the images
        network: the network of teacher and students
        scheme: how the students are binarised
        teacher_train: the teacher's training
        train: the training of each student
        students: name -> what that student learns from
        teacher: reuse a trained teacher: a run folder, torchvision:NAME or timm:NAME
        teacher_weights: file with the state dict of a torchvision or timm teacher
        teacher_normalization: mean and std with which the teacher's images are normalised: those of its own training
            (own), or those of the data set (data)
        fabric: devices and processes
        log: progress bar and TensorBoard's event files
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
        rule = "given together with teacher, which is torchvision:NAME or timm:NAME"
        require(self.teacher_weights is None or self.teacher is not None, "teacher_weights", rule, self.teacher_weights)
        of_teacher = self.teacher_normalization
        require(of_teacher in ("own", "data"), "teacher_normalization", "own or data", of_teacher)
        require(of_teacher == "own" or self.teacher is not None, "teacher_normalization", rule, of_teacher)

    @property
    def max_seconds(self) -> float | None:
        """The time limit of the whole command in seconds, the lower one of teacher and students; None: no limit."""
        return min((t.max_seconds for t in (self.teacher_train, self.train) if t.max_seconds is not None), default=None)


@dataclass(frozen=True)
class MemberConfig:
    """The settings of one network of a run, the teacher or a student, as config.yaml in its folder has them.

    name: 'teacher' or the student's name. scheme: how it is binarised, or None for full precision. distill: what it
    learns from. The other fields are those of `RunConfig`.

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
        """Whether the network learns from a teacher, or starts from a teacher's weights."""
        return self.distill.needs_teacher or (self.scheme is not None and self.scheme.from_teacher)

    def of_first_stage(self) -> MemberConfig | None:
        """Returns the settings of the first of two training stages; None if the training has a single stage.

        Raises UserError if the warm-up is not shorter than the first stage.
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
