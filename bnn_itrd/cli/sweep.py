"""The command ``bnn-itrd sweep``, which trains a grid of methods, seeds and fields, and compares the results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_itrd import recipes as recipe_files
from bnn_itrd.cli.options import TRUST
from bnn_itrd.cli.recipe import fitted_config, line_printer, no_recipe
from bnn_itrd.config.help import wants_help
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.tokens import given_options
from bnn_itrd.config.trees import changed, to_dict
from bnn_itrd.console import print_record, print_table, print_text
from bnn_itrd.errors import UserError
from bnn_itrd.words import counted

if TYPE_CHECKING:
    from bnn_itrd.config.run import RunConfig

__all__ = ["command"]


_SWEEP = (
    "Train a grid. Each combination of methods, seeds and values of fields is a point, which is trained in its own "
    "folder below --out. Print means and spreads over the seeds, and whether differences are larger than the spread. "
    "The same command continues a sweep that was interrupted and skips finished points. A larger grid in the same "
    "folder trains only the new points. The exit status is 1 if a point failed."
)
_OPTIONS = {
    "grid": "a field and the values it takes (train.seed=0,1,2; scheme.weight=recu,xnor; students.NAME.kd.tau=2,4); "
    "may be given several times",
    "methods": "distillers, one or more: train a student with each of them, at its default options, and a plain "
    "student without any; all: every distiller; package.module:Name: a distiller of your own",
    "out": "folder of the sweep; sweeps/RECIPE by default",
    "reference": "the student, or the row of the table, with which the others are compared; the plain student by "
    "default",
}
_FLAGS = {
    "teacher_per_seed": "train a teacher for each seed; by default a single one, with teacher_train.seed",
    "json": "print JSON",
    **TRUST,
}


@dataclasses.dataclass
class _Own:
    """The arguments of `sweep`: the values of its own options, and in `fields` the options that set recipe fields."""

    grid: list[str] = dataclasses.field(default_factory=list)
    methods: list[str] | None = None
    out: str | None = None
    reference: str | None = None
    teacher_per_seed: bool = False
    json: bool = False
    trust: bool = False
    fields: list[str] = dataclasses.field(default_factory=list)


def _own_options(argv: Sequence[str]) -> _Own:
    """Separates the options of `sweep` itself from those that set fields of the recipe.

    Raises UserError if an option lacks its value, or has one that it does not take.
    """
    own = _Own()
    for option in given_options(argv):
        if option.key in _FLAGS:
            option.check_flag()
            setattr(own, option.key, True)
        elif option.key in ("out", "reference"):
            setattr(own, option.key, option.value())
        elif option.key == "grid":
            if not option.values:
                raise UserError("--grid needs a field and its values: --grid train.seed=0,1,2")
            own.grid += option.values
        elif option.key == "methods":
            names = [name for text in option.values for name in text.split(",") if name]
            own.methods = [*(own.methods or []), *names]
        else:
            own.fields += option.words
    return own


def command(argv: Sequence[str]) -> int:
    """Runs ``sweep RECIPE --grid FIELD=A,B --methods NAME... --out DIR``, which trains a grid and prints its table.

    Returns 0, or 1 if a point of the grid, which is one training, failed.
    """
    if wants_help(argv):
        run_config("sweep", _SWEEP, {}, argv, extra=_OPTIONS, flags=_FLAGS)
    if not argv or argv[0].startswith("-"):
        raise no_recipe("sweep")
    name = argv[0]
    own = _own_options(argv[1:])
    recipe = recipe_files.read(name)
    # An unknown option is reported before anything else.
    config, _ = run_config("sweep", "", recipe, own.fields, extra=_OPTIONS, flags=_FLAGS)
    if not own.grid and own.methods is None:
        raise UserError("the grid is empty: give --grid FIELD=VALUE,VALUE (train.seed=0,1,2), or --methods NAME...")
    from bnn_itrd.experiments.grid import make_points, parse_axis, student_trees

    axes = [parse_axis(text) for text in own.grid]
    students = student_trees(own.methods, recipe)
    say, out = line_printer(quiet=own.json), Path(own.out or Path("sweeps") / Path(name).stem)
    if not {"data.name", "data.root"} & {axis.field for axis in axes}:
        given = {option.key for option in given_options(own.fields)} | {axis.field for axis in axes}
        own.fields = [*_changed(config, fitted_config(name, config, out, given=given, say=say)), *own.fields]
    points = make_points(recipe, students, axes, own.fields, teacher_per_seed=own.teacher_per_seed, say=say)
    from bnn_itrd.experiments.sweep import Sweep, reference_of

    made = Sweep(points, out, recipe=name, reference=reference_of(points, own.reference), trust=own.trust)
    made.check()
    result = made.run(say=(lambda text: None) if own.json else print_record)
    if own.json:
        print(json.dumps(result, indent=1))
    else:
        from bnn_itrd.experiments.statistics import table_cells

        print_table(table_cells(result["table"]), f"{counted(len(points), 'point')}, reference: {made.reference}")
        for line in result["notes"]:
            print_text(f"- {line}")
        print(f"{out}/sweep.md  {out}/sweep.csv  {out}/sweep.json")
    return int(any(point["state"] == "failed" for point in result["points"]))


def _changed(before: RunConfig, after: RunConfig) -> list[str]:
    """Returns the fields that differ between two configurations, as options that set them: ``--train.epochs=20``."""
    return [f"--{field}={value}" for field, (_, value) in changed(to_dict(before), to_dict(after)).items()]
