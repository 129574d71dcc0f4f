"""The commands that take a recipe or a run: run, train, summary, compare, recipes. Each prints what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd import recipes as recipe_files
from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError
from bnn_itrd.options import parse, parser, run_config

if TYPE_CHECKING:
    from bnn_itrd.config import RunConfig

__all__ = ["compare", "recipes", "run", "summary", "train"]


def recipe_config(
    command: str, description: str, argv: Sequence[str], extra: dict[str, str]
) -> tuple[str, RunConfig, dict[str, Any]]:
    if argv and not argv[0].startswith("-"):
        name, rest = argv[0], list(argv[1:])
        config, own = run_config(command, description, recipe_files.read(name), rest, extra=extra)
        return name, config, own
    if any(token in ("-h", "--help") for token in argv):
        run_config(command, description, {}, argv, extra=extra)
    raise UserError(f"bnn-itrd {command} needs a recipe: one of {', '.join(recipe_files.names())}, or a .yaml file")


def run_text_task(command: str, argv: Sequence[str]) -> int | None:
    """Runs a recipe that has a task of its own (question answering); None where it is one of images."""
    if not argv or argv[0].startswith("-"):
        return None
    tree = recipe_files.read(argv[0])
    if "task" not in tree:
        return None
    from bnn_itrd.nlp.commands import command as run_task

    return run_task(command, argv[0], tree, argv[1:])


def out_folder(own: dict[str, Any], name: str) -> Path:
    return Path(own["out"] or Path("runs") / Path(name).stem)


def run(argv: Sequence[str]) -> int:
    """``run RECIPE --out DIR``: the whole road."""
    if (status := run_text_task("run", argv)) is not None:
        return status
    name, config, own = recipe_config(
        "run",
        "Train a teacher and its binary students, export each to ONNX, hold every file against its network on the "
        "test images, and compare: comparison.json, report.html and a table. It downloads nothing. The same command "
        "continues a run that was interrupted.",
        argv,
        {"out": "folder of the run; runs/RECIPE by default"},
    )
    from bnn_itrd.comparison import table_rows
    from bnn_itrd.run import run as run_recipe

    out = out_folder(own, name)
    comparison = run_recipe(config, out, recipe=name)
    if comparison is not None:
        print_table(
            table_rows(comparison),
            f"{comparison['dataset']['name']}: {comparison['dataset']['test']} test images",
        )
        _print_agreement(comparison)
        print(f"{out}/report.html  {out}/comparison.json")
    return 0


def _print_agreement(comparison: dict[str, Any]) -> None:
    for model in comparison["models"]:
        for artefact in model["artefacts"]:
            odd = artefact.get("disagreements")
            if odd:
                shown = ", ".join(f"image {d['index']} ({d['torch']} -> {d['file']})" for d in odd[:8])
                more = f" and {len(odd) - 8} more" if len(odd) > 8 else ""
                print(f"{model['name']}/{artefact['file']} differs from PyTorch on {shown}{more}")


def train(argv: Sequence[str]) -> int:
    """``train RECIPE --member NAME --out DIR``: one network of a recipe."""
    if (status := run_text_task("train", argv)) is not None:
        return status
    name, config, own = recipe_config(
        "train",
        "Train one member of a recipe in the folder DIR/MEMBER: 'teacher', or a student. A student takes its teacher "
        "from --teacher PATH, or from DIR/teacher where that was trained before.",
        argv,
        {"out": "folder of the run; runs/RECIPE by default", "member": "teacher, or the name of a student"},
    )
    from bnn_itrd.comparison import table_rows
    from bnn_itrd.run import run as run_recipe

    member = own["member"]
    if member is None:
        raise UserError(f"--member is missing: one of {', '.join(['teacher', *config.students])}")
    comparison = run_recipe(config, out_folder(own, name), recipe=name, only=member)
    if comparison is not None:
        print_table(table_rows(comparison))
    return 0


def summary(argv: Sequence[str]) -> int:
    """``summary WHAT``: a recipe's teacher and student, or a trained network."""
    p = parser(
        "bnn-itrd summary",
        "Layers, shapes, bits, MACs and bytes: a recipe's teacher and student, or a trained run.",
    )
    p.add_argument("what", help="recipe, run folder or checkpoint")
    p.add_argument("--classes", type=int, default=10, help="a recipe's number of classes")
    args = parse(p, argv)
    from bnn_itrd.models import summary as describe

    if Path(args.what).exists() and not args.what.endswith((".yaml", ".yml")):
        from bnn_itrd.members import load_member

        print(describe(load_member(args.what)[0]))
        return 0
    from bnn_itrd.config import NetworkConfig, SchemeConfig, member_config
    from bnn_itrd.networks import LIBRARIES, build

    config, _ = run_config("summary", "", recipe_files.read(args.what), [], extra={})
    digits = config.data.name == "digits"
    size = config.data.image_size or (8 if digits else 32)
    shape = (1 if digits else 3, size, size)
    address = config.teacher or ""
    named = address.partition(":")[0] in LIBRARIES
    teacher = NetworkConfig(name=address) if named else config.network.of_teacher()
    shown: list[tuple[str, NetworkConfig, SchemeConfig | None]] = [("teacher", teacher, None)]
    if config.students:
        student = member_config(config, next(iter(config.students)))
        shown.append(("student", student.network, student.scheme))
    for title, network, scheme in shown:
        model = build(network, scheme, num_classes=args.classes, input_shape=shape)
        print(f"{title}: {network.name}, input {'x'.join(map(str, shape))}\n{describe(model)}\n")
    return 0


def compare(argv: Sequence[str]) -> int:
    """``compare DIR...``: one table of several runs."""
    p = parser("bnn-itrd compare", "One table of several runs: folders that hold a comparison.json.")
    p.add_argument("folders", nargs="+", help="run folders")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parse(p, argv)
    from bnn_itrd.collect import collect, markdown

    rows = collect([Path(f) for f in args.folders])
    if args.json:
        print(json.dumps(rows, indent=1))
    elif args.markdown:
        print(markdown(rows))
    else:
        print_table([{k: str(v) for k, v in row.items()} for row in rows])
    return 0


def recipes(argv: Sequence[str]) -> int:
    """``recipes``: names and purposes."""
    width = max(len(name) for name in recipe_files.names())
    for name in recipe_files.names():
        print(f"{name.ljust(width)}  {recipe_files.describe(name)}")
    return 0
