"""What to do with a finished run, as commands that can be pasted."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["EXAMPLE", "next_steps"]

# In the folder of a run: the first of its test images.
EXAMPLE = "example.png"


def next_steps(comparison: Mapping[str, Any], folders: Mapping[str, Path], out: Path, *, options: str = "") -> str:
    """Returns what a run ends with: how to predict, to time and to read the report, and what was not validated.

    comparison: of the run in `out`; folders: name of a network -> its folder. The student with the highest top-1 is the
    one that is named. options: what `validate` needs to load these networks again (``--trust``).
    """
    models = {model["name"]: model for model in comparison["models"]}
    students = [name for name in models if models[name]["method"] != "teacher"] or list(models)
    best = max(students, key=lambda name: models[name]["top1_last"])
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
    """What shows a page: this system's own way, or on a machine without a screen a server."""
    own = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    if sys.platform in ("darwin", "win32") or shutil.which(own) is not None:
        return f"{own} {shlex.quote(str(page))}"
    folder = shlex.quote(str(page.parent))
    return f"python3 -m http.server --bind 127.0.0.1 --directory {folder}\n      then http://localhost:8000/{page.name}"


def _not_validated(models: Mapping[str, Any], folders: Mapping[str, Path], options: str) -> list[str]:
    """A line for each runtime whose files were not run, and the command that runs them."""
    from bnn_itrd.deploy.targets import TARGETS
    from bnn_itrd.export.runtimes.environments import RUNTIMES

    lines = []
    for runtime in RUNTIMES:
        rows = [
            (folders[name] / row["file"], str(row.get("error") or ""))
            for name, model in models.items()
            for row in model["artefacts"]
            if TARGETS[row["target"]].runtime == runtime and "agreement" not in row
        ]
        files = [file for file, _ in rows]
        failed = [error for _, error in rows if error]
        if failed:
            lines.append(f"Not validated, since {runtime} failed ({failed[0].splitlines()[0]}); to try it again:")
            lines.append(f"  {_command('validate', *files)}{options}")
        elif rows:
            kinds = ", ".join(sorted({"".join(file.suffixes) for file in files}))
            lines.append(f"Not validated: {kinds}, for want of the runtime {runtime}; this makes and uses it:")
            lines.append(f"  {_command('validate', *files)}{options} --setup {runtime}")
    return lines
