"""The commands of experiments: sweep (many trainings, one table) and probe (a trained network on other images)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bnn_itrd import recipes as recipe_files
from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError
from bnn_itrd.options import data_config, parser, run_config

__all__ = ["probe", "sweep"]

_SWEEP = (
    "Train every point of a grid, methods x seeds or any fields, each in a folder of its own below --out, and compare: "
    "mean and spread over the seeds, and whether a difference is larger than the spread. The same command continues a "
    "sweep that was interrupted and skips what is done; a larger grid in the same folder trains what is new. Exit "
    "status 1 where a point failed."
)
_OPTIONS = {
    "grid": "FIELD=VALUE,VALUE...: an axis (train.seed=0,1,2; scheme.weight=recu,xnor; students.NAME.kd.tau=2,4); "
    "may be given several times",
    "methods": "NAME...: students, one per distiller with its default options, and a plain one; or: all",
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


def sweep(argv: Sequence[str]) -> int:
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
    from bnn_itrd.grid import make_points, parse_axis, student_trees

    axes = [parse_axis(text) for text in axis_texts]
    students = student_trees(methods, recipe)
    own = {key: text for key, text in _OPTIONS.items() if key in ("out", "reference")}
    _, values = run_config("sweep", "", {**recipe, "students": students}, rest, extra=own)
    fields = _without(rest, own)
    points = make_points(recipe, students, axes, fields, teacher_per_seed="teacher_per_seed" in flags)
    from bnn_itrd.sweep import Sweep, reference_of

    out = Path(values["out"] or Path("sweeps") / Path(name).stem)
    made = Sweep(points, out, recipe=name, reference=reference_of(points, values["reference"]))
    made.check()
    quiet = "json" in flags
    result = made.run(say=(lambda text: None) if quiet else (lambda text: print(text, flush=True)))
    if quiet:
        print(json.dumps(result, indent=1))
    else:
        from bnn_itrd.spread import table_cells

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


def probe(argv: Sequence[str]) -> int:
    """``probe CHECKPOINT --data NAME``: how much a linear classifier makes of the frozen representation."""
    p = parser(
        "bnn-itrd probe",
        "Linear probe: the representation of a trained network, teacher or student, on the images of another data set, "
        "and a linear classifier trained on it; top-1 on the test images.",
    )
    p.usage = "bnn-itrd probe PATH --data NAME [--data.root ROOT] [--c C] [--best] [--json]"
    p.add_argument("path", help="run folder or checkpoint")
    p.add_argument("--c", type=float, default=1.0, help="inverse of the L2 penalty on the classifier's weights")
    p.add_argument("--max_iterations", type=int, default=1000, help="of L-BFGS")
    p.add_argument("--best", action="store_true", help="the epoch with the best top-1, not the last")
    p.add_argument("--json", action="store_true", help="print JSON")
    args, given = data_config(p, argv)
    if "name" not in given:
        raise UserError("probe needs the data set to probe with: --data NAME")
    from bnn_itrd.members import load_member
    from bnn_itrd.probe import linear_probe, probe_data

    model, known, path = load_member(args.path, best=args.best)
    data = probe_data(known, given)
    result = linear_probe(model, known, data, c=args.c, max_iterations=args.max_iterations)
    values = {"path": str(path), "data": data.name, **result}
    if args.json:
        print(json.dumps(values, indent=1))
    else:
        print(
            f"{path}: top-1 {result['top1']:.2f} % on {result['test']} test images of {data.name} "
            f"({result['classes']} classes), a linear classifier on {result['dimensions']} features of "
            f"{result['train']} training images ({result['train_top1']:.2f} % of these)"
        )
        if not result["converged"]:
            print(f"L-BFGS did not converge in {args.max_iterations} iterations: give more with --max_iterations")
    return 0
