"""Functions that turn the options of a sweep, ``--grid FIELD=A,B`` and ``--methods``, into a list of trainings."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnn_itrd.config.addresses import is_address, named_addresses
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.own import column_of
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import MemberConfig, RunConfig, member_config
from bnn_itrd.config.trees import flatten, to_dict
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.errors import UserError, unknown

__all__ = ["Axis", "Point", "make_points", "parse_axis", "student_trees"]

PLAIN = "plain"
_SEED, _WEIGHT = "train.seed", "scheme.weight"


@dataclass(frozen=True)
class Axis:
    """One ``--grid FIELD=A,B`` of a sweep: a field of the configuration, and its values as they were written."""

    field: str
    values: tuple[str, ...]

    @property
    def student(self) -> str | None:
        """Returns the name of the student that the field belongs to; None if it is a field of all students."""
        return self.field.split(".")[1] if self.field.startswith("students.") else None


@dataclass(frozen=True)
class Point:
    """One training of a sweep: a student, with one value for each field of the grid.

    name: also its folder's name; row: the name without the seed, which all seeds of a method share; teacher: its
    teacher's name; student: the student's name in the configuration; fields: field of the grid -> value as written.
    """

    name: str
    row: str
    teacher: str
    student: str
    fields: dict[str, str]
    config: RunConfig

    @property
    def seed(self) -> int:
        """Returns the seed of the student's training."""
        return self.config.train.seed

    @property
    def member(self) -> MemberConfig:
        """Returns the settings of the student's training, named as this point."""
        return dataclasses.replace(member_config(self.config, self.student), name=self.name)

    @property
    def named(self) -> frozenset[str]:
        """Returns the addresses of a user's own code (``package.module:Name``) that the configuration contains."""
        return named_addresses(to_dict(self.config))

    @property
    def trains_teacher(self) -> bool:
        """Returns whether the sweep has to train a teacher for this student, because it needs one and none is given."""
        return self.config.teacher is None and self.member.needs_teacher

    @property
    def teacher_member(self) -> MemberConfig:
        """Returns the settings of its teacher's training.

        Fields of the network that only students use are left out, so that students that differ in them share a teacher.
        """
        made = member_config(self.config, "teacher")
        shared = NetworkConfig(made.network.name, made.network.width, teacher_shortcut=made.network.teacher_shortcut)
        return dataclasses.replace(made, network=shared)


def _split(text: str) -> list[str]:
    """Splits a text at its commas, except those inside brackets: ``{a: 1, b: 2},3`` gives two values."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in [*parts, text[start:]]]


def parse_axis(text: str) -> Axis:
    """Parses one ``--grid`` option, FIELD=A,B. Raises UserError if the field is unknown or a value is empty.

    >>> parse_axis("train.seed=0,1,2")
    Axis(field='train.seed', values=('0', '1', '2'))
    """
    field, equals, values = text.partition("=")
    known = list(flatten({k: v for k, v in to_dict(RunConfig(students={})).items() if k != "students"}))
    if not equals or not field:
        raise UserError(f"--grid must be FIELD=VALUE,VALUE (train.seed=0,1,2), got {text!r}")
    if field not in known and not re.fullmatch(r"students\.[^.]+\.([^.]+|[\w.]+:\w+)(\.[^.]+)?", field):
        raise unknown("field in --grid", field, [*known, "students.NAME.METHOD.FIELD"])
    if not values.strip():
        raise UserError(f"--grid {field} is empty: give it values, {field}=A,B")
    found = _split(values)
    if "" in found:
        raise UserError(f"--grid {field} has an empty value in {values!r}: remove a comma")
    return Axis(field, tuple(found))


def student_trees(methods: Sequence[str] | None, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the students that a sweep compares, as the nested dict of the configuration field `students`.

    methods: the names after ``--methods``; None: the recipe's students. For names there is one student without a
    distiller, called plain, and one for each name; if the recipe has a student of that name, its options are used. A
    user's own distiller is named by its address, and its student by the part after the colon: ``mypkg.losses:Mine`` ->
    Mine. recipe: the recipe as a nested dict. Raises UserError on an unknown or repeated name.
    """
    own = recipe.get("students", to_dict(RunConfig())["students"])
    if methods is None:
        return dict(own) if isinstance(own, Mapping) else own
    if not methods:
        raise UserError(f"--methods is empty: name some of {', '.join([PLAIN, *METHODS])}, or all")
    named = [*METHODS, *filter(is_address, methods)] if "all" in methods else methods
    names = [name for name in named if name != PLAIN]
    for name in names:
        if name not in METHODS and not is_address(name):
            raise unknown("method", name, [PLAIN, *METHODS, "all", "package.module:Name"])
    students = [column_of(name) for name in names]
    if repeated := [name for name in students if students.count(name) > 1]:
        raise UserError(f"--methods names {repeated[0]} more than once")
    if PLAIN in students:
        raise UserError(f"--methods: {PLAIN} is the name of the student without a distiller: rename your distiller")
    own = own if isinstance(own, Mapping) else {}
    trees = {name: own.get(column_of(name)) or {name: {}} for name in names}
    for name, tree in trees.items():
        if is_address(name) and name not in tree:
            raise UserError(
                f"--methods {name} would make a student {column_of(name)}, but the recipe has one of this name without "
                "that distiller: rename the student or the distiller"
            )
    return {PLAIN: {}, **{column_of(name): tree for name, tree in trees.items()}}


def _labels(axes: Sequence[Axis]) -> dict[str, str]:
    """Returns a short name for the field of each axis, as field -> name.

    It is the last word of the field, ``lr`` for ``train.lr``. If two fields end with the same word, they get more
    words: ``train_lr`` and ``teacher_train_lr``.
    """
    labels = {}
    for axis in axes:
        parts = axis.field.split(".")
        others = [other.field.split(".") for other in axes if other is not axis]
        length = next(n for n in range(1, len(parts) + 1) if all(o[-n:] != parts[-n:] for o in others))
        labels[axis.field] = "_".join(parts[-length:])
    return labels


def _part(label: str, value: str) -> str:
    """Returns a field's short name and a value as a part of a folder's name, with _ for characters bad in paths."""
    label = "" if label.split("_")[-1] == "name" else label  # so that network.name gives resnet8 and not nameresnet8
    return label + re.sub(r"[^A-Za-z0-9._+]+", "_", value).strip("_")


def _check_axes(axes: Sequence[Axis], students: Mapping[str, Any]) -> None:
    """Raises UserError if a field is given twice, or belongs to a student that the sweep does not have."""
    fields = [axis.field for axis in axes]
    for axis in axes:
        if fields.count(axis.field) > 1:
            raise UserError(f"--grid {axis.field} is given more than once: give all its values in one")
        if axis.student is not None and axis.student not in students:
            raise unknown(f"student in --grid {axis.field}:", axis.student, students)


def make_points(
    recipe: Mapping[str, Any],
    students: Mapping[str, Any],
    axes: Sequence[Axis],
    argv: Sequence[str] = (),
    *,
    teacher_per_seed: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Point]:
    """Returns the trainings of a sweep: each student with each combination of the values of the axes.

    All trainings with the first seed come first, so that the methods have equally many seeds if the sweep is stopped. A
    field of one student is varied for that student only. recipe, students: as nested dicts; argv: options that replace
    fields of the recipe; teacher_per_seed: True: a teacher for each seed; say: as in `run_config`.
    The name of a point consists of the binariser of the weights (of binary students), the student, the values and the
    seed (``recu-kd-s1``); it does not change when the grid grows. Raises UserError if there are no students, a field or
    student is unknown, a value is not allowed, or two points have the same name.
    """
    tree = {**recipe, "students": dict(students)}
    base, _ = run_config("sweep", "", tree, argv, extra={})
    if not base.students:
        raise UserError("the grid is empty: the recipe has no students: name some with --methods")
    _check_axes(axes, base.students)
    labels = _labels([axis for axis in axes if axis.field not in (_SEED, _WEIGHT)])
    order = sorted(axes, key=lambda axis: axis.field != _SEED)
    seeds = [axis for axis in order if axis.field == _SEED]
    configs: dict[tuple[str, ...], RunConfig] = {}
    points = []
    for seed in itertools.product(*(axis.values for axis in seeds)):
        for student in base.students:
            own = [axis for axis in order if axis not in seeds and axis.student in (None, student)]
            for values in itertools.product(*(axis.values for axis in own)):
                fields = dict(zip([a.field for a in [*seeds, *own]], [*seed, *values], strict=True))
                tokens = tuple(f"--{field}={value}" for field, value in fields.items())
                if tokens not in configs:
                    configs[tokens] = run_config("sweep", "", tree, [*argv, *tokens], extra={}, say=say)[0]
                points.append(_point(student, fields, labels, configs[tokens], teacher_per_seed))
    seen: set[str] = set()
    for point in points:
        if point.name in seen:
            raise UserError(f"two trainings of the grid are called {point.name}: is a value given twice?")
        seen.add(point.name)
    return points


def _point(
    student: str, fields: dict[str, str], labels: Mapping[str, str], config: RunConfig, teacher_per_seed: bool
) -> Point:
    """Returns one training of a sweep.

    fields: field of the grid -> value; labels: field -> its short name, from which the training's name is made.
    """
    if teacher_per_seed:
        config = dataclasses.replace(
            config, teacher_train=dataclasses.replace(config.teacher_train, seed=config.train.seed)
        )
    parts = {field: _part(labels[field], value) for field, value in fields.items() if field in labels}
    scheme = _part("", config.scheme.weight)
    named = not config.scheme.binary or student == scheme or student.startswith(f"{scheme}-")
    row = "-".join([*([] if named else [scheme]), student, *parts.values()])
    shared = ("network.name", "network.width", "network.teacher_shortcut")
    of_teacher = [part for f, part in parts.items() if f.startswith(("data.", "teacher_train.")) or f in shared[1:]]
    teacher = "-".join([config.network.of_teacher().name, *of_teacher, f"s{config.teacher_train.seed}"])
    return Point(f"{row}-s{config.train.seed}", row, teacher, student, fields, config)
