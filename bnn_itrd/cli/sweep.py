"""``bnn-itrd sweep``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bnn_itrd import recipes as recipe_files
from bnn_itrd.config.parse import run_config
from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError

__all__ = ["command"]


_SWEEP = (
    "Train every point of a grid, methods x seeds or any fields, each in a folder of its own below --out, and compare: "
    "mean and spread over the seeds, and whether a difference is larger than the spread. The same command continues a "
    "sweep that was interrupted and skips what is done; a larger grid in the same folder trains what is new. Exit "
    "status 1 where a point failed."
)
_OPTIONS = {
    "grid": "FIELD=VALUE,VALUE...: an axis (train.seed=0,1,2; scheme.weight=recu,xnor; students.NAME.kd.tau=2,4); "
    "may be given several times",
    "methods": "NAME...: students, one per distiller with its default options, and a plain one; or: all; a "
    "distiller of your own is package.module:Name",
    "out": "folder of the sweep; sweeps/RECIPE by default",
    "reference": "the student, or the row of the table, that the others are held against; the plain student by default",
    "teacher_per_seed": "(flag) a teacher for each seed; by default one, with teacher_train.seed, for all of them",
    "json": "(flag) print JSON",
}


def _own_options(argv: Sequence[str]) -> tuple[list[str], list[str], list[str] | None, set[str]]:
    """(the other tokens, axes, methods, flags). Raises UserError where a value is missing or out of place."""
    rest: list[str] = []
    axes: list[str] = []
    methods: list[str] | None = None
    flags: set[str] = set()
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        name, equals, value = token.partition("=")
        if name in ("--json", "--teacher_per_seed"):
            if equals:
                raise UserError(f"{name} takes no value, got {value!r}")
            flags.add(name[2:])
        elif name in ("--grid", "--methods"):
            given = [value] if equals else []
            while not equals and tokens and not tokens[0].startswith("--"):
                given.append(tokens.pop(0))
            if name == "--grid":
                if not given:
                    raise UserError("--grid needs an axis: --grid train.seed=0,1,2")
                axes += given
            else:
                methods = [*(methods or []), *(m for text in given for m in text.split(",") if m)]
        else:
            rest.append(token)
    return rest, axes, methods, flags


def command(argv: Sequence[str]) -> int:
    """``sweep RECIPE --grid FIELD=A,B --methods NAME... --out DIR``: 0, or 1 where a point failed."""
    if any(token in ("-h", "--help") for token in argv):
        run_config("sweep", _SWEEP, {}, ["--help"], extra=_OPTIONS)
    if not argv or argv[0].startswith("-"):
        raise UserError(f"bnn-itrd sweep needs a recipe: one of {', '.join(recipe_files.names())}, or a .yaml file")
    name = argv[0]
    rest, axis_texts, methods, flags = _own_options(argv[1:])
    recipe = recipe_files.read(name)
    if not axis_texts and methods is None:
        raise UserError("the grid is empty: give --grid FIELD=VALUE,VALUE (train.seed=0,1,2), or --methods NAME...")
    from bnn_itrd.experiments.grid import make_points, parse_axis, student_trees

    axes = [parse_axis(text) for text in axis_texts]
    students = student_trees(methods, recipe)
    own = {key: text for key, text in _OPTIONS.items() if key in ("out", "reference")}
    _, values = run_config("sweep", "", {**recipe, "students": students}, rest, extra=own)
    fields = _without(rest, own)
    points = make_points(recipe, students, axes, fields, teacher_per_seed="teacher_per_seed" in flags)
    from bnn_itrd.experiments.sweep import Sweep, reference_of

    out = Path(values["out"] or Path("sweeps") / Path(name).stem)
    made = Sweep(points, out, recipe=name, reference=reference_of(points, values["reference"]))
    made.check()
    quiet = "json" in flags
    result = made.run(say=(lambda text: None) if quiet else (lambda text: print(text, flush=True)))
    if quiet:
        print(json.dumps(result, indent=1))
    else:
        from bnn_itrd.experiments.statistics import table_cells

        print_table(table_cells(result["table"]), f"{len(points)} points, reference: {made.reference}")
        for line in result["notes"]:
            print(f"- {line}")
        print(f"{out}/sweep.md  {out}/sweep.csv  {out}/sweep.json")
    return int(any(point["state"] == "failed" for point in result["points"]))


def _without(argv: Sequence[str], names: Sequence[str] | dict[str, str]) -> list[str]:
    """The tokens that are fields of the recipe."""
    rest: list[str] = []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        key, equals, _ = token.removeprefix("--").partition("=")
        if token.startswith("--") and key in names:
            del tokens[: 0 if equals else 1]
        else:
            rest.append(token)
    return rest
