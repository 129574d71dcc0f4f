"""Functions that decide which trained networks belong in which cell of a published table, by their config.yaml."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bnn_itrd import recipes
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import RunConfig, member_config
from bnn_itrd.config.trees import changed, to_dict
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.experiments.papers.published import Cell, teacher_cell
from bnn_itrd.experiments.papers.questions import SQUAD, wanted_reader
from bnn_itrd.experiments.papers.runs import FoundRun
from bnn_itrd.experiments.papers.teacher_data import other_teacher_data, saw_other_images
from bnn_itrd.nlp.config import HiddenConfig

__all__ = ["Filled", "Wanted", "config_of", "fill", "tokens", "value_of", "wanted"]

# Fields that are not compared with the published setting: names, the seed, options for the machine or for speed, and
# how often the network is evaluated.
_NOT_OF_SETTING = (
    *("name", "train.seed", "train.precision", "train.compile", "train.compile_mode", "train.channels_last"),
    *("train.eval_every", "train.fused_kernels", "data.per_class_seed"),
)
# The groups of fields that are compared with the published setting.
_SETTING = ("data.", "scheme", "train.", "distill.")
# Fields that only the learning rate schedule `step` uses.
_OF_STEP = ("train.milestones", "train.decay")
# Distiller -> the class of its options, which has their defaults.
_KNOWN = {**METHODS, "hidden": HiddenConfig}
# The first word of a table's measure -> the name of that score in a run; all other measures are top-1.
_MEASURES = {"top-5": "top5", "exact": "em", "F1": "f1"}
# Options of distillers that depend on the machine and do not change the method.
_OF_MACHINES = ("gather",)


@dataclass(frozen=True)
class Wanted:
    """The training that would give the value in a cell of a published table; trained networks are compared with it.

    member: the network's configuration, as a nested dict; is_it: the result of `_identity` for it; teacher: the name of
    the teacher's network, None without one; teacher_data: the settings of the teacher's data, None if it is a network
    of another library, or there is none; fixed: fields (or groups of fields) that must have the cell's values.
    """

    member: Mapping[str, Any]
    is_it: tuple[Any, ...]
    teacher: str | None
    teacher_data: Mapping[str, Any] | None
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class Filled:
    """Trained networks that belong in a cell of a published table and differ from each other only in their seeds.

    runs: the networks; values: their results in the table's measure; differs: how their setting differs from the
    published one, as lines of text; same_methods: whether their distillers have exactly the cell's options.
    """

    runs: tuple[FoundRun, ...]
    values: tuple[float, ...]
    differs: tuple[str, ...]
    same_methods: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        """Returns the different seeds, in order."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def epochs(self) -> int:
        """Returns the number of epochs of each training."""
        return self.runs[0].of

    @property
    def mean(self) -> float:
        """Returns the mean of the values."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Returns the sample standard deviation of the values; None if there is only one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def tokens(fields: Mapping[str, Any]) -> list[str]:
    """Returns fields (name -> value) as arguments of a command line.

    >>> tokens({"data.per_class": None, "students.at": {"at": {"weight": 1000.0}}})
    ['--data.per_class=null', '--students.at={"at": {"weight": 1000.0}}']
    """
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items()]


@cache
def _config(recipe: str, words: tuple[str, ...]) -> RunConfig:
    """Returns the configuration of a recipe with some fields replaced by command line arguments; it is cached."""
    return run_config("table", "", recipes.read(recipe), words, extra={})[0]


def config_of(cell: Cell) -> RunConfig:
    """Returns the configuration of the run that trains a table's cell, which must have a recipe for images."""
    assert cell.recipe is not None
    return _config(cell.recipe, tuple(tokens(cell.fields)))


def wanted(cell: Cell) -> Wanted:
    """Returns the training that would give the value in a table's cell; that must have a recipe and a member."""
    assert cell.recipe is not None and cell.member is not None
    if cell.recipe == SQUAD:
        tree, of = wanted_reader(cell.member, tokens(cell.fields))
        return Wanted(tree, _identity(tree), of, None, tuple(cell.fields))
    config = config_of(cell)
    made = member_config(config, cell.member)
    tree = to_dict(made)
    fixed = []
    for key in cell.fields:
        group, _, rest = key.partition(".")
        place = f"distill.{rest.partition('.')[2]}" if group == "students" else key
        if place not in ("distill.", "network.name"):
            fixed.append(place)
    if not made.distill.needs_teacher:
        return Wanted(tree, _identity(tree), None, None, tuple(fixed))
    if config.teacher is not None:
        return Wanted(tree, _identity(tree), config.teacher, None, tuple(fixed))
    seen = to_dict(config_of(teacher_cell(cell)).data)
    return Wanted(tree, _identity(tree), config.network.of_teacher().name, seen, tuple(fixed))


def _identity(member: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what must be equal for a network to belong in a table's cell: kind of data, binarisers, and distillers.

    member: a network's configuration, as a nested dict.
    """
    scheme, distill, data = member.get("scheme"), member["distill"], member["data"]
    binary = None
    if isinstance(scheme, Mapping):
        stages = scheme.get("first_stage") if scheme.get("first_stage_epochs") else None
        parts = [scheme.get(part, default) for part, default in (("weight", "recu"), ("activation", "recu"))]
        binary = (*parts, scheme.get("nonlinearity", "hardtanh"), bool(scheme.get("rad")), stages)
    methods = []
    for name, options in distill.items():
        if isinstance(options, Mapping):
            methods.append((name, tuple(sorted(_kind(name, options).items(), key=str))))
    # The data set, whether some images have no labels, and whether the network begins with trained weights.
    seen = data.get("name"), bool(data.get("unlabelled")), bool(member["network"].get("weights"))
    return seen, binary, bool(distill.get("ce", 1)), tuple(sorted(methods))


def _kind(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a distiller that make it a different method than its default options do.

    These are texts and booleans that are not the default, and numbers that are 0 where the default is not, or the other
    way round. name: the distiller's; options: as saved. A missing option counts as its default, because a configuration
    saved by an older version does not have it.

    >>> _kind("itrd", {"beta_mi": 0.0, "alpha": 1.5}), _kind("vid", {"form": "logits", "batch_norm": False})
    ({'beta_mi': 'is 0'}, {'form': 'logits'})
    """
    usual = to_dict(_KNOWN[name]()) if name in _KNOWN else {}
    kept: dict[str, Any] = {}
    for key, value in options.items():
        default = usual.get(key)
        if isinstance(value, (str, bool)):
            if value != default and key not in _OF_MACHINES:
                kept[key] = value
        elif isinstance(value, (int, float)) and isinstance(default, (int, float)) and (value == 0) != (default == 0):
            kept[key] = "is 0" if value == 0 else "is not 0"
    return kept


def fill(cell: Cell, runs: Sequence[FoundRun], *, published: Cell | None = None) -> list[Filled]:
    """Returns the trained networks that belong in a table's cell, grouped by setting, with the closest setting first.

    Networks that are not trained to their end are left out. Groups whose distillers have exactly the cell's options
    come first, then those with most epochs, fewest differences and most networks. published: the cell with the
    published setting, if `cell` is the version of it for two cores.
    """
    runs = [run for run in runs if _may_fill(run, cell)]
    if not runs:
        return []
    want = wanted(cell)
    setting = want if published is None or published is cell else wanted(published)
    groups: dict[tuple[tuple[str, ...], bool], list[FoundRun]] = {}
    for run in runs:
        if run.epochs == run.of and _fits(run, want):
            groups.setdefault((_differs(run, setting), _same_methods(run, want)), []).append(run)
    filled = []
    for (differs, same_methods), found in groups.items():
        once = {
            (run.seed, *run.scores.items()): run for run in found
        }  # results/ contains some runs twice; each counts once
        values = [value_of(run, cell.measure) for run in once.values()]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            filled.append(Filled(tuple(once.values()), tuple(known), differs, same_methods))
    return sorted(
        filled,
        key=lambda each: (not each.same_methods, -each.epochs, len(each.differs), -len(each.runs), each.differs),
    )


def _may_fill(run: FoundRun, cell: Cell) -> bool:
    """Returns whether a network could belong in a table's cell: data and network must have the recipe's names.

    This quick check saves making the whole configuration for most networks.
    """
    if not cell.trains or cell.recipe is None:
        return False
    tree = recipes.read(cell.recipe)
    if run.member["data"].get("name") != tree["data"]["name"]:
        return False
    if cell.recipe == SQUAD:
        return True
    network = {cell.fields.get("network.name", tree["network"]["name"]), tree["network"].get("teacher")}
    return run.member["network"]["name"] in network


def value_of(run: FoundRun, measure: str) -> float | None:
    """Returns a network's result in a table's measure (``error %`` is 100 - top-1); None if it was not measured."""
    value = run.scores.get(_MEASURES.get(measure.partition(" ")[0], "top1"))
    return 100 - value if value is not None and "error" in measure else value


def _fits(run: FoundRun, want: Wanted) -> bool:
    """Returns whether a trained network belongs in the table's cell whose training is `want`."""
    if _identity(run.member) != want.is_it:
        return False
    if want.teacher is not None and (run.teacher is None or run.teacher.network != want.teacher):
        return False
    if saw_other_images(run, want.teacher_data, student=want.member["data"]):
        return False
    different = changed(run.member, want.member)
    different.pop("network.weights", None)  # the file's path does not matter; _identity compares whether there is one
    if any(key.startswith("network.") for key in different):
        return False
    of_machines = tuple(f".{name}" for name in _OF_MACHINES)
    return not any(
        key == place or (key.startswith(f"{place}.") and not key.endswith(of_machines))
        for key in different
        for place in want.fixed
    )


def _same_methods(run: FoundRun, want: Wanted) -> bool:
    """Returns whether a network's distillers have exactly the options of the training `want`."""
    keys = [key for key in changed(run.member, want.member) if key.startswith("distill.")]
    return all(key.rpartition(".")[2] in _OF_MACHINES for key in keys)


def _differs(run: FoundRun, setting: Wanted) -> tuple[str, ...]:
    """Returns how a network's setting differs from another, as texts with the other's value in brackets.

    An example is ``epochs 72 (600)``.
    """
    lines = []
    if run.split != "test":
        lines.append("scored on held-out images")
    for key, (there, published) in changed(run.member, setting.member).items():
        if key in _NOT_OF_SETTING or not key.startswith(_SETTING):  # other fields follow from the data or do not matter
            continue
        if key in _OF_STEP and run.member["train"].get("schedule", "cosine") != "step":
            continue
        name = key.removeprefix("train.").removeprefix("distill.")
        lines.append(f"{name} {_text(there)} ({_text(published)})")
    of_teacher = other_teacher_data(run, setting.teacher_data, student=setting.member["data"])
    for name, (there, published) in of_teacher.items():
        lines.append(f"teacher's data.{name} {_text(there)} ({_text(published)})")
    lines.sort(key=lambda line: (not line.startswith(("epochs", "data.")), line))
    return tuple(lines)


def _text(value: Any) -> str:
    """Returns a field's value as text for the user."""
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else json.dumps(value) if isinstance(value, (list, tuple, bool)) else str(value)
