"""The exported file that the folder of a run, or of one of its networks, is named for."""

from __future__ import annotations

from pathlib import Path

from bnn_itrd.deploy.targets import TARGETS
from bnn_itrd.errors import UserError
from bnn_itrd.runs.comparison_file import read_comparison
from bnn_itrd.runs.load import no_such_path

__all__ = ["find_exported"]


def find_exported(path: Path) -> tuple[Path, str]:
    """Returns the file that a path means, and a line that says which one was chosen where there were several networks.

    path: the file itself, a network's folder, or a run's: of several students the one with the highest top-1 in its
    comparison.json. Raises UserError where there is none, or nothing says which.

    >>> find_exported(Path("runs/digits"))  # doctest: +SKIP
    (PosixPath('runs/digits/recu/student.onnx'), 'runs/digits holds recu, recu-itrd, teacher: taken is recu, ...')
    """
    if path.is_file():
        return path, ""
    if not path.is_dir():
        raise no_such_path(path)
    if (file := _file_in(path)) is not None:
        return file, ""
    found = {folder.name: file for folder in sorted(path.iterdir()) if (file := _file_in(folder)) is not None}
    students = {name: file for name, file in found.items() if name != "teacher"} or found
    if len(students) == 1:
        return next(iter(students.values())), ""
    if not found:
        trained = any(path.glob("last.pt")) or any(path.glob("*/last.pt"))
        hint = f": bnn-itrd export {path} writes one of a trained network" if trained else ""
        raise UserError(f"{path} holds no exported file{hint}")
    record, told = path / "comparison.json", f"{path} holds {', '.join(found)}"
    rows = read_comparison(record)["models"] if record.is_file() else []
    known = {row["name"]: row["top1_last"] for row in rows if row["name"] in students}
    if not known:
        raise UserError(f"{told}: name one, {path / list(students)[-1]}")
    best = max(known, key=lambda name: known[name])
    return students[best], f"{told}: taken is {best}, the student with the highest top-1 ({known[best]:.2f} %)"


def _file_in(folder: Path) -> Path | None:
    """The file of one network in its folder, the first in the order of the targets; None where there is none."""
    names = (f"{stem}{target.suffix}" for target in TARGETS.values() for stem in ("student", "teacher"))
    return next((folder / name for name in names if (folder / name).is_file()), None)
