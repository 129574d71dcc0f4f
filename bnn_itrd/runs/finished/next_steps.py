"""The commands to go on with after a run, which a run prints at its end."""

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

# The file in a run's folder with its first test image.
EXAMPLE = "example.png"


def next_steps(comparison: Mapping[str, Any], folders: Mapping[str, Path], out: Path, *, options: str = "") -> str:
    """Returns the last lines of a run's output: commands to predict, time, read the report, and validate other files.

    comparison: that of the run in `out`; folders: network's name -> its folder. The commands use the student with the
    highest top-1. options: those that `validate` needs to load these networks (``--trust``).
    """
    models = {model["name"]: model for model in comparison["models"]}
    best = best_student(comparison["models"])
    files = {name: folders[name] / model["artefacts"][0]["file"] for name, model in models.items()}
    lines = ["Next:"]
    if (out / EXAMPLE).is_file():
        lines.append(f"  {_command('predict', files[best], out / EXAMPLE)}")
        lines.append("      a test image; your own photos, or a folder of them, go in its place")
    others = [files[name] for name in models if name != best and models[name]["method"] == "teacher"]
    against = f" --against {shlex.quote(str(others[0]))}" if others else ""
    lines += [f"  {_command('bench', files[best])}{against}", f"  {_show(out / 'report.html')}"]
    return "\n".join([*lines, *_not_validated(models, folders, options)])


def _command(name: str, *paths: Path) -> str:
    return " ".join(["bnn-itrd", name, *(shlex.quote(str(path)) for path in paths)])


def _show(page: Path) -> str:
    """Returns a command that shows a page: the system's own, or a web server on a machine without a screen."""
    own = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    if sys.platform in ("darwin", "win32") or shutil.which(own) is not None:
        return f"{own} {shlex.quote(str(page))}"
    folder = shlex.quote(str(page.parent))
    return f"python3 -m http.server --bind 127.0.0.1 --directory {folder}\n      then http://localhost:8000/{page.name}"


def _not_validated(models: Mapping[str, Any], folders: Mapping[str, Path], options: str) -> list[str]:
    """A line for the files of each target that were not run, as the page says it, and the command that runs them."""
    lines = []
    for unrun in unrun_files(models.values()):
        files = [folders[model["name"]] / artefact["file"] for model, artefact in unrun.files]
        names = ", ".join(f"{model['name']}/{artefact['file']}" for model, artefact in unrun.files)
        setup = f" --setup {unrun.setup}" if unrun.setup else ""
        lines += broken_lines(f"Not validated: {names}: {unrun.reason}. {_REMEDIES[bool(setup)]}:")
        lines.append(f"  {_command('validate', *files)}{options}{setup}")
    return lines


# What the command does, without and with the making of a runtime.
_REMEDIES = {False: "To try it again", True: "This makes and uses it"}


def after_training(name: str, out: Path, *, rest: bool, options: str = "") -> str:
    """Returns what the training of one network ends with: how to evaluate and export it, and to run the others.

    out: the folder of its run; rest: the run has other networks that are not trained yet, or were not compared.

    >>> print(after_training("recu", Path("runs/digits"), rest=True))
    Next:
      bnn-itrd evaluate runs/digits/recu
      bnn-itrd export runs/digits/recu
      bnn-itrd run runs/digits/config.yaml
          the run with all its networks: trains those that are missing, exports and compares
    """
    lines = ["Next:", *(f"  {_command(command, out / name)}{options}" for command in ("evaluate", "export"))]
    if rest:
        lines.append(f"  {_command('run', out / 'config.yaml')}{options}")
        lines.append("      the run with all its networks: trains those that are missing, exports and compares")
    return "\n".join(lines)
