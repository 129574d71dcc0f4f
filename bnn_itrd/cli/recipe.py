"""Functions for the commands that take a recipe, such as `run`: they read the recipe and the options after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd import recipes as recipe_files
from bnn_itrd.cli.options import TRUST
from bnn_itrd.config.help import wants_help
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.tokens import given_options
from bnn_itrd.console import broken_lines
from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from bnn_itrd.config.run import RunConfig

__all__ = ["fitted_config", "line_printer", "no_recipe", "recipe_config", "run_text_task"]


def recipe_config(
    command: str, description: str, argv: Sequence[str], extra: dict[str, str]
) -> tuple[str, RunConfig, dict[str, Any]]:
    """Reads the recipe and the fields in a command's arguments; returns (recipe's name, configuration, own options).

    extra: the command's own options, name -> help; --trust is added to them. The own options are a dict name -> value,
    in which `out`, if the command has it, is the run's folder, by default `recipes.default_folder`. Raises UserError if
    no recipe is given, and as `recipes.read` and `run_config` do.
    """
    if argv and not argv[0].startswith("-"):
        name, rest = argv[0], list(argv[1:])
        tree = recipe_files.read(name)
        config, own = run_config(command, description, tree, rest, extra=extra, flags=TRUST, say=line_printer())
        if "out" in own:
            own["out"] = Path(own["out"] or recipe_files.default_folder(name, tree))
            given = {option.key for option in given_options(rest)}
            config = fitted_config(name, config, own["out"], given=given, say=line_printer())
        return str(tree.get("recipe", name)), config, own
    if wants_help(argv):
        run_config(command, description, {}, argv, extra=extra, flags=TRUST)
    raise no_recipe(command)


def fitted_config(
    name: str, config: RunConfig, out: Path, *, given: Collection[str], say: Callable[[str], None]
) -> RunConfig:
    """Returns the configuration with settings that suit the photos in a user's folder, if its data set is ``folder``.

    name: the recipe. out: the run's folder. given: names of the fields that the user gave, which are not changed. say:
    a function that is called with a line of text for each change. See `fit_to_photos`.
    """
    if config.data.name != "folder":
        return config
    import torch

    from bnn_itrd.data.files.photos import fit_to_photos

    on_cpu = config.fabric.accelerator == "cpu" or not torch.accelerator.is_available()
    return fit_to_photos(config, out, given=given, budget=name == "folder", on_cpu=on_cpu, say=say)


def no_recipe(command: str) -> UserError:
    """Returns the error for a command that was called without a recipe."""
    names = ", ".join(recipe_files.names())
    return UserError(f"bnn-itrd {command} needs a recipe: one of {names}, or a .yaml file")


def line_printer(*, quiet: bool = False) -> Callable[[str], None]:
    """Returns a function that prints a line of text, unless it has printed the same line before.

    Of several training processes, only the first prints. quiet: print to standard error, because standard output is for
    JSON.
    """
    printed: set[str] = set()

    def say(line: str) -> None:
        if line not in printed and os.environ.get("LOCAL_RANK", "0") == "0":
            print(*broken_lines(line), sep="\n", file=sys.stderr if quiet else sys.stdout)
        printed.add(line)

    return say


def run_text_task(command: str, argv: Sequence[str]) -> int | None:
    """Runs a command if its recipe (a YAML file of settings) is for question answering; returns the exit status.

    Such a recipe has the key `task`. For any other recipe, and without one, nothing is run and the result is None.
    command: 'run' or 'train'. argv: the command's arguments, of which the first is the recipe's name or file.
    """
    if not argv or argv[0].startswith("-"):
        return None
    tree = recipe_files.read(argv[0])
    if "task" not in tree:
        return None
    from bnn_itrd.nlp.command import squad_command

    return squad_command(command, argv[0], tree, argv[1:])
