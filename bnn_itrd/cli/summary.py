"""The command ``bnn-itrd summary``, which prints layers, bits, MACs and bytes of networks."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_itrd import recipes as recipe_files
from bnn_itrd.cli.options import TRUST, add_own_network, check_unused, say_note
from bnn_itrd.config.help import wants_help
from bnn_itrd.config.parse import parse, parser, run_config
from bnn_itrd.console import print_table, print_text
from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from bnn_itrd.models.cost import Summary

__all__ = ["command"]

_CLASSES = 10
_OPTIONS = {"classes": "number of classes for the networks of a recipe", "model": ""}


def command(argv: Sequence[str]) -> int:
    """Runs ``summary WHAT [--FIELD VALUE ...]``, which prints the layers and costs of networks; returns 0.

    WHAT is a recipe, for whose teacher and first student a table is printed, or a trained network.
    """
    if argv and not argv[0].startswith("-") and not wants_help(argv) and _is_recipe(argv[0]):
        return _of_recipe(argv[0], argv[1:])
    p = parser(
        "bnn-itrd summary",
        "Print layers, shapes, bits, MACs and bytes of a recipe's teacher and student, or of a trained network. Any "
        "field of the recipe may be changed (--network.name vgg_small).",
    )
    p.usage = "bnn-itrd summary WHAT [--classes N] [--FIELD VALUE ...]"
    p.add_argument("what", help="recipe, run folder or checkpoint")
    p.add_argument("--classes", type=int, default=_CLASSES, help=_OPTIONS["classes"])
    add_own_network(p)
    if not wants_help(argv):
        _check_no_field(argv)
    args = parse(p, argv)
    if _is_recipe(args.what):  # the user gave the options first and the recipe behind them
        i = list(argv).index(args.what)
        return _of_recipe(args.what, [*argv[:i], *argv[i + 1 :]])
    if args.classes != _CLASSES:
        raise UserError(f"--classes is for a recipe, but {args.what} has its own number of classes: leave it out")
    from bnn_itrd.models import summary as describe
    from bnn_itrd.runs.load import load_member

    _print(describe(load_member(args.what, model=args.model, trust=args.trust, say=say_note)[0]))
    return 0


def _check_no_field(argv: Sequence[str]) -> None:
    """Raises UserError if the arguments set a field of a recipe (``--train.epochs``) but do not begin with a recipe."""
    from bnn_itrd.config.run import RunConfig

    fields = {field.name for field in dataclasses.fields(RunConfig)}
    for option in (word.partition("=")[0] for word in argv if word.startswith("--")):
        if option[2:].partition(".")[0] not in fields:
            continue
        if argv[0].startswith("-"):
            raise UserError(
                f"{option} is a field of a recipe, which must come first: bnn-itrd summary RECIPE {option} VALUE"
            )
        raise UserError(f"{option} is for a recipe, and {argv[0]} is not one: leave it out")


def _is_recipe(what: str) -> bool:
    """Returns whether an argument means a recipe: it ends in .yaml or .yml, or no file or folder has that name."""
    return what.endswith((".yaml", ".yml")) or not Path(what).exists()


def _of_recipe(what: str, words: Sequence[str]) -> int:
    """Prints the layers of a recipe's teacher and first student, with the fields in `words` changed; returns 0.

    what: the recipe's name or file. Raises UserError as `run_config` does.
    """
    if not what.endswith((".yaml", ".yml")) and Path(what).name != what:
        from bnn_itrd.runs.load import no_such_path

        raise no_such_path(Path(what))
    config, own = run_config("summary", "", recipe_files.read(what), words, extra=_OPTIONS, flags=TRUST)
    check_unused(argparse.Namespace(**own), ["model", "trust"], what, "a recipe")
    classes = _number_of_classes(own["classes"])
    from bnn_itrd.config.addresses import LIBRARIES
    from bnn_itrd.config.network import NetworkConfig
    from bnn_itrd.config.run import member_config
    from bnn_itrd.config.scheme import SchemeConfig
    from bnn_itrd.models import summary as describe
    from bnn_itrd.runs.networks import build

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
        model = build(network, scheme, num_classes=classes, input_shape=shape)
        _print(describe(model), f"{title}: {network.name}, input {'x'.join(map(str, shape))}")
    return 0


def _number_of_classes(text: str | None) -> int:
    """Returns the value of --classes; raises UserError if it is no whole number >= 1."""
    if text is None:
        return _CLASSES
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--classes must be a whole number >= 1, got {text}")
    return int(text)


def _print(summary: Summary, title: str = "") -> None:
    """Prints a network's layers and totals in the width of the terminal."""
    print_table(summary.rows(), title)
    print_text(f"{summary.totals()}\n")
