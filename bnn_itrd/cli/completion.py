"""The command ``bnn-itrd completion``, which prints a script for a shell to complete commands, options and recipes."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from bnn_itrd import recipes as recipe_files
from bnn_itrd.config.help import RECIPE, HelpPage
from bnn_itrd.config.parse import parse, parser
from bnn_itrd.errors import UserError, unknown

__all__ = ["command"]

_SHELLS = ("bash", "zsh")
# Names of arguments and options whose value is a path, for which the shell offers files.
_PATHS = {"file", "files", "path", "folders", "images", "what"}
_PATH_OPTIONS = {"--out", "--data.root", "--checkpoint", "--against", "--teacher", "--lce_python", "--fpga_python"}


def command(argv: Sequence[str]) -> int:
    """Runs ``completion SHELL``, which prints the script; returns 0."""
    p = parser(
        "bnn-itrd completion",
        "Print a script with which a shell completes the commands, their options and the recipes. For bash: "
        "bnn-itrd completion bash > ~/.local/share/bash-completion/completions/bnn-itrd; for zsh, with a FOLDER that "
        "$fpath names: bnn-itrd completion zsh > FOLDER/_bnn-itrd. It works in shells that are opened afterwards.",
    )
    p.usage = "bnn-itrd completion SHELL"
    p.add_argument("shell", help="bash or zsh")
    args = parse(p, argv)
    if args.shell not in _SHELLS:
        raise unknown("shell", args.shell, _SHELLS)
    try:
        import shtab
    except ImportError as error:
        raise UserError("completion is made with shtab, which is not installed: pip install shtab") from error
    print(shtab.complete(_tree(), shell=args.shell))
    return 0


def _tree() -> argparse.ArgumentParser:
    """Returns an argparse parser with all commands, each with every option; shtab makes the script from it."""
    from bnn_itrd.cli import COMMANDS

    tree = argparse.ArgumentParser(prog="bnn-itrd")
    commands = tree.add_subparsers()
    for name, (module, _, line) in COMMANDS.items():
        try:
            importlib.import_module(module).command(["--help", "all"])
        except HelpPage as shown:
            added = commands.add_parser(name, parents=[shown.page], add_help=False, help=line)
            for action in added._actions:
                _complete(action)
    return tree


def _complete(action: argparse.Action) -> None:
    """Sets what a shell offers as the value of an option or argument: recipes, file names, or its choices."""
    import shtab

    if action.dest == RECIPE:
        action.choices = recipe_files.names()
    elif action.dest == "shell":
        action.choices = _SHELLS
    elif action.dest in _PATHS or _PATH_OPTIONS & set(action.option_strings):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    elif isinstance(action.metavar, str) and action.metavar.startswith("{") and "," in action.metavar:
        action.choices = action.metavar.strip("{}").split(",")
