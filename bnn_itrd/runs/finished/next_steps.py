"""The commands that `run` and `train` print at their end, for the user to try next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_itrd.console import broken_lines
from bnn_itrd.report.files.unchecked import unrun_files
from bnn_itrd.runs.comparison_file import best_student

__all__ = ["EXAMPLE", "after_training", "next_steps"]

# The file in a run's folder that contains the first test image.
EXAMPLE = "example.png"


def next_steps(comparison: Mapping[str, Any], folders: Mapping[str, Path], out: Path, *, options: str = "") -> str:
    """Returns the text that ends a run's output: commands that predict, time the file, and open the report.

    The commands use the student with the highest top-1. If some exported files could not be run, there are also
    commands that validate them. comparison: the content of comparison.json; folders: network's name -> its folder; out:
    the run's folder; options: what `validate` needs to load these networks, such as ``--trust``.
    """
    models = {model["name"]: model for model in comparison["models"]}
    best = best_student(comparison["models"])
    files = {name: folders[name] / model["artefacts"][0]["file"] for name, model in models.items()}
    lines = ["Next:"]
    if (out / EXAMPLE).is_file():
        lines.append(f"  {_command('predict', files[best], out / EXAMPLE)}")
        lines.append("      this is a test image: give your own photos, or a folder of them, instead")
    others = [files[name] for name in models if name != best and models[name]["method"] == "teacher"]
    against = f" --against {shlex.quote(str(others[0]))}" if others else ""
    lines += [f"  {_command('bench', files[best])}{against}", f"  {_show(out / 'report.html')}"]
    return "\n".join([*lines, *_not_validated(models, folders, options)])


def _command(name: str, *paths: Path) -> str:
    """Returns a command of bnn-itrd with its paths quoted for a shell."""
    return " ".join(["bnn-itrd", name, *(shlex.quote(str(path)) for path in paths)])


def _show(page: Path) -> str:
    """Returns a shell command that opens an HTML page; on a machine without a browser, one that serves the page."""
    own = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    if sys.platform in ("darwin", "win32") or shutil.which(own) is not None:
        return f"{own} {shlex.quote(str(page))}"
    folder = shlex.quote(str(page.parent))
    return f"python3 -m http.server --bind 127.0.0.1 --directory {folder}\n      then open http://localhost:8000/{page.name}"


def _not_validated(models: Mapping[str, Any], folders: Mapping[str, Path], options: str) -> list[str]:
    """Returns lines that say which exported files were not run and why, each followed by a command that runs them."""
    lines = []
    for unrun in unrun_files(models.values()):
        files = [folders[model["name"]] / artefact["file"] for model, artefact in unrun.files]
        names = ", ".join(f"{model['name']}/{artefact['file']}" for model, artefact in unrun.files)
        setup = f" --setup {unrun.setup}" if unrun.setup else ""
        lines += broken_lines(f"Not validated: {names}: {unrun.reason}. {_REMEDIES[bool(setup)]}:")
        lines.append(f"  {_command('validate', *files)}{options}{setup}")
    return lines


# What the command does. The key: whether it also installs the runtime that was missing.
_REMEDIES = {False: "To try it again", True: "This installs and uses it"}


def after_training(name: str, out: Path, *, rest: bool, options: str = "") -> str:
    """Returns the text that ends the training of a single network: commands that evaluate and export it.

    name: the network's; out: the run's folder; rest: True: also a command for the run's other networks, because some
    are not trained or not compared yet; options: added to each command.

    >>> print(after_training("recu", Path("runs/digits"), rest=True))
    Next:
      bnn-itrd evaluate runs/digits/recu
      bnn-itrd export runs/digits/recu
      bnn-itrd run runs/digits/config.yaml
          trains the other networks of the run, then exports and compares all
    """
    lines = ["Next:", *(f"  {_command(command, out / name)}{options}" for command in ("evaluate", "export"))]
    if rest:
        lines.append(f"  {_command('run', out / 'config.yaml')}{options}")
        lines.append("      trains the other networks of the run, then exports and compares all")
    return "\n".join(lines)
