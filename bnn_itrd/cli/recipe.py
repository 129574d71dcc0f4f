"""What the commands that take a recipe share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd import recipes as recipe_files
from bnn_itrd.config.parse import run_config
from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from bnn_itrd.config.run import RunConfig

__all__ = ["out_folder", "recipe_config", "run_text_task"]


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
    from bnn_itrd.nlp.command import squad_command

    return squad_command(command, argv[0], tree, argv[1:])


def out_folder(own: dict[str, Any], name: str) -> Path:
    return Path(own["out"] or Path("runs") / Path(name).stem)
