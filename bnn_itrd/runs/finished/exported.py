"""A function that finds the exported file that a user means by the path of a folder or checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bnn_itrd.deploy.targets import TARGETS
from bnn_itrd.errors import UserError
from bnn_itrd.export import read_metadata
from bnn_itrd.files import file_hash
from bnn_itrd.runs.comparison_file import best_of_run
from bnn_itrd.runs.load import no_such_path

__all__ = ["find_exported"]


def find_exported(path: Path, *, say: Callable[[str], None]) -> Path:
    """Returns the exported file that a path stands for; commands that run a file, such as `predict`, call it.

    path: the file itself, the checkpoint that it was exported from, a network's folder, or a run's folder. In a run
    with several students the one with the highest top-1 in comparison.json is chosen. say: a function called with a
    line that names the file, if it was chosen so. Raises UserError if there is no file, or it cannot be chosen.

    >>> find_exported(Path("runs/digits"), say=print)  # doctest: +SKIP
    runs/digits holds recu, recu-itrd, teacher: recu is used, the student with the highest top-1 (97.80 %)
    PosixPath('runs/digits/recu/student.onnx')
    """
    if path.is_file():
        return _of_checkpoint(path, say=say) if path.suffix == ".pt" else path
    if not path.is_dir():
        raise no_such_path(path)
    if (file := _file_in(path)) is not None:
        return file
    found = {folder.name: file for folder in sorted(path.iterdir()) if (file := _file_in(folder)) is not None}
    students = {name: file for name, file in found.items() if name != "teacher"} or found
    if len(students) == 1:
        return next(iter(students.values()))
    if not found:
        trained = any(path.glob("last.pt")) or any(path.glob("*/last.pt"))
        hint = f": bnn-itrd export {path} exports its trained network" if trained else ""
        raise UserError(f"{path} has no exported file{hint}")
    best = best_of_run(path, list(found), say=say)
    if best is None:
        raise UserError(f"{path} holds {', '.join(found)}: name one of these, such as {path / list(students)[-1]}")
    return found[best]


def _of_checkpoint(path: Path, *, say: Callable[[str], None]) -> Path:
    """Returns the ONNX file next to a checkpoint. Raises UserError if it was not exported from this very checkpoint."""
    file = _file_in(path.parent)
    if file is not None and file.suffix == ".onnx" and read_metadata(file).get("source_sha256") == file_hash(path):
        say(f"{path} is a checkpoint: {file} is used, which was exported from it")
        return file
    raise UserError(f"{path} is a checkpoint, not an exported file: bnn-itrd export {path} makes one")


def _file_in(folder: Path) -> Path | None:
    """Returns the exported file in a network's folder, the first in the order of TARGETS; None if there is none."""
    names = (f"{stem}{target.suffix}" for target in TARGETS.values() for stem in ("student", "teacher"))
    return next((folder / name for name in names if (folder / name).is_file()), None)
