"""The choice of an exported file when a command is given a folder."""

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
    """Returns the exported file for a path; say: is called with a line if the file was chosen for the user.

    path: the file itself, the checkpoint that it was exported from, a network's folder, or a run's: of several
    students the one with the highest top-1 in its comparison.json. Raises UserError where there is none, or nothing
    says which.

    >>> find_exported(Path("runs/digits"), say=print)  # doctest: +SKIP
    runs/digits holds recu, recu-itrd, teacher: taken is recu, the student with the highest top-1 (97.80 %)
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
        hint = f": bnn-itrd export {path} writes one of a trained network" if trained else ""
        raise UserError(f"{path} holds no exported file{hint}")
    best = best_of_run(path, list(found), say=say)
    if best is None:
        raise UserError(f"{path} holds {', '.join(found)}: name one, {path / list(students)[-1]}")
    return found[best]


def _of_checkpoint(path: Path, *, say: Callable[[str], None]) -> Path:
    """The file beside a checkpoint, where it was exported from this state of it. Raises UserError where it was not."""
    file = _file_in(path.parent)
    if file is not None and file.suffix == ".onnx" and read_metadata(file).get("source_sha256") == file_hash(path):
        say(f"{path} is a checkpoint: taken is {file}, which was exported from it")
        return file
    raise UserError(f"{path} is a checkpoint, not an exported file: bnn-itrd export {path} writes one")


def _file_in(folder: Path) -> Path | None:
    """Returns the exported file in a network's folder, the first in the order of TARGETS; None if there is none."""
    names = (f"{stem}{target.suffix}" for target in TARGETS.values() for stem in ("student", "teacher"))
    return next((folder / name for name in names if (folder / name).is_file()), None)
