"""Functions that find the trained networks in folders, by their config.yaml and metrics.csv."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError
from bnn_itrd.experiments.papers.questions import read_reader, teacher_of_readers
from bnn_itrd.runs.comparison_file import read_comparison
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.yaml_files import read_yaml

__all__ = ["FoundRun", "FoundTeacher", "find_runs"]


# The columns of metrics.csv that a published table may show.
_SCORES = ("top1", "top5", "em", "f1")


@dataclass(frozen=True)
class FoundTeacher:
    """The teacher of a trained network that was found in a folder.

    network: its network's name; data: the settings of the data that it was trained on, None for a network of another
    library; top1: its top-1 in percent, None if that is not recorded.
    """

    network: str
    data: Mapping[str, Any] | None
    top1: float | None


@dataclass(frozen=True)
class FoundRun:
    """One trained network that was found in a folder.

    member: its configuration, as a nested dict with the groups of `MemberConfig`; epochs: the number of finished
    epochs; split: 'test' or 'val', the images of its evaluation; scores: its results after the last epoch, in percent:
    top1 and top5, or em (exact match) and f1; teacher: the teacher that it learned from, None if there is none or it is
    not recorded.
    """

    folder: Path
    member: Mapping[str, Any]
    epochs: int
    split: str
    scores: Mapping[str, float]
    teacher: FoundTeacher | None = None

    @property
    def seed(self) -> int:
        """Returns the seed of its training."""
        return int(self.member["train"].get("seed", 0))

    @property
    def of(self) -> int:
        """Returns the number of epochs that its whole training has."""
        return int(self.member["train"]["epochs"])


def find_runs(folders: Sequence[Path]) -> list[FoundRun]:
    """Returns the trained networks in some folders and all folders below; each was evaluated at least once.

    A network is recognised by the config.yaml and metrics.csv in its folder, as runs and sweeps write them. Raises
    UserError if one of the folders does not exist.
    """
    found: dict[Path, FoundRun] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} to search for runs")
        for path in sorted(folder.rglob("metrics.csv")):
            run = _read(path.parent)
            if run is not None:
                found.setdefault(path.parent.resolve(), run)
    return list(found.values())


def _record(folder: Path) -> dict[str, Any] | None:
    """Returns the configuration in a network's config.yaml; None if the file is missing or not a network's."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    try:
        tree = read_yaml(path)
    except UserError:
        return None
    if not isinstance(tree, dict):
        return None
    tree = read_reader(tree, folder) or tree
    groups = ("data", "network", "train", "distill")
    if "name" not in tree or not all(isinstance(tree.get(g), dict) for g in groups):
        return None
    names = (tree["data"].get("name"), tree["network"].get("name"))
    numbers = (tree["train"].get("epochs"), tree["train"].get("seed", 0))
    whole = all(isinstance(n, str) for n in names) and all(isinstance(n, int) for n in numbers)
    return tree if whole else None


def _read(folder: Path) -> FoundRun | None:
    """Returns the trained network in a folder; None if there is none, or it is the first of two training stages."""
    member = _record(folder)
    if member is None or _record(folder.parent) is not None:  # a folder inside a network's is its first stage
        return None
    try:
        rows = read_metrics(folder / "metrics.csv")
    except (ValueError, KeyError, TypeError, OverflowError, csv.Error, OSError):
        return None
    evaluated = [row for row in rows if any(row.get(score) is not None for score in ("top1", "em"))]
    if not evaluated:
        return None
    last = evaluated[-1]
    learns = any(isinstance(options, dict) for options in member["distill"].values())
    return FoundRun(
        folder=folder,
        member=member,
        epochs=rows[-1]["epoch"],
        split=str(last.get("split")),
        scores={name: last[name] for name in _SCORES if last.get(name) is not None},
        teacher=_teacher(folder, member) if learns else None,
    )


def _teacher(folder: Path, member: Mapping[str, Any]) -> FoundTeacher | None:
    """Returns the teacher of the network in a folder; None if nothing says which it was.

    The network's configuration, `member`, names its teacher. If an older version wrote it, the teacher is read from a
    comparison.json or from the teacher's own folder, and where nothing tells its data, they count as the student's.
    """
    compared = _compared(folder) or _compared(folder.parent)
    told = member.get("teacher")
    if isinstance(told, dict) and isinstance(told.get("network"), str):
        data = told["data"] if isinstance(told.get("data"), dict) else None
        # comparison.json has the top-1 on the test images, also if the training was scored on others.
        return FoundTeacher(told["network"], data, told.get("top1") if compared is None else compared.top1)
    if compared is not None:
        return dataclasses.replace(compared, data=member["data"])
    found = [run for run in map(_read, _teacher_folders(folder)) if run is not None]
    networks = {run.member["network"]["name"] for run in found}
    if len(networks) != 1:
        return None
    if len(found) > 1:
        return FoundTeacher(networks.pop(), member["data"], None)
    return FoundTeacher(networks.pop(), found[0].member["data"], found[0].scores.get("top1"))


def _compared(place: Path) -> FoundTeacher | None:
    """Returns the teacher in a folder's comparison.json, which does not tell its data; None if it names none."""
    try:
        first = read_comparison(place / "comparison.json")["models"][0]
    except (UserError, OSError, IndexError):
        of_readers = teacher_of_readers(place)
        return None if of_readers is None else FoundTeacher(of_readers, None, None)
    if (first.get("method") or first["name"]) != "teacher":
        return None
    return FoundTeacher(first["network"], None, first["top1_last"])


def _teacher_folders(folder: Path) -> Iterator[Path]:
    """Yields the folders where a run or a sweep keeps the teacher of the network in a folder."""
    yield folder.parent / "teacher"
    yield from sorted((folder.parent / "teachers").glob("*"))
