"""Functions that make the commands for a published table's empty cells, with the hours that they would take."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnn_itrd.config.run import member_config
from bnn_itrd.experiments.papers.cells import config_of, fill, tokens, wanted
from bnn_itrd.experiments.papers.hours import Expected, expected_hours
from bnn_itrd.experiments.papers.published import Cell, PublishedTable, small_cell, teacher_cell
from bnn_itrd.experiments.papers.questions import SQUAD
from bnn_itrd.experiments.papers.runs import FoundRun

__all__ = ["Task", "missing_tasks", "small_tasks"]

# A shell variable in the commands: the user sets it to the folder of the images before running them.
_DATA = '"$DATA"'
# A field whose value, a file of weights, only the user knows; its command has a shell variable instead.
_OF_READER = "network.weights"
# The folder in which the commands of all small versions train their teacher and their students.
_SMALL = "sweeps/small-tables"


@dataclass(frozen=True)
class Task:
    """One shell command, the hours that it is expected to take, and what it trains, as text for the user."""

    command: str
    hours: Expected
    fills: str


def missing_tasks(table: PublishedTable, runs: Sequence[FoundRun]) -> list[Task]:
    """Returns the commands that train what a table's empty cells need: one for each seed, teachers first.

    runs: the trained networks that exist. A cell is empty if none of them belongs in it with exactly its distillers'
    options; other differences from the published setting do not matter. Cells without a published value are left out,
    unless the table has no values at all. A training that several cells need is listed once. A teacher that exists with
    its weights is not trained: the commands of its students name its folder.
    """
    of_table = [cell for cell in table.cells if cell.trains and (cell.value is not None or not table.has_values)]
    empty = [cell for cell in of_table if not any(found.same_methods for found in fill(cell, runs))]
    teachers: dict[str, Task] = {}
    students: list[Task] = []
    weights: dict[str, str | None] = {}
    begun: set[str] = set()
    for cell in empty:
        if cell.recipe == SQUAD:
            students.append(_squad(table, cell))
            continue
        want = wanted(cell)
        training = json.dumps([want.teacher, want.member], sort_keys=True)
        if training in begun:
            continue
        begun.add(training)
        own = config_of(cell).network.of_teacher().name
        folder = _folder(table, f"teacher-{_plain(own)}")
        if want.teacher_data is not None and own not in weights:
            weights[own] = _trained(teacher_cell(cell), runs)
        if cell.member == "teacher" or (want.teacher_data is not None and weights[own] is None):
            teachers.setdefault(own, _teacher(teacher_cell(cell), folder))
        if cell.member != "teacher":
            given = weights.get(own) or folder
            students += [_student(table, cell, given, seed) for seed in range(table.seeds)]
    once = {task.command: task for task in [*teachers.values(), *students]}
    return list(once.values())


def _folder(table: PublishedTable, name: str) -> str:
    """Returns the folder in which a command trains a network."""
    return f"runs/{table.name}/{name}"


def _plain(text: str) -> str:
    """Replaces characters that are unusual in a folder's name by _, and returns the text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")


def _trained(cell: Cell, runs: Sequence[FoundRun]) -> str | None:
    """Returns the folder of a teacher that students can learn from: it has weights, and exactly its cell's setting.

    The result is None if there is none. cell: that of the teacher. If there are several, the one in the folder in which
    the commands train small versions is preferred, otherwise the first.
    """
    fits = [run for run in runs if any(not each.differs for each in fill(cell, [run]))]
    folders = [run.folder for run in fits if (run.folder / "last.pt").is_file()]
    folders.sort(key=lambda folder: folder != Path(_SMALL, "teacher"))
    return str(folders[0]) if folders else None


def _teacher(cell: Cell, out: str) -> Task:
    """Returns the command that trains a teacher; cell: that of the teacher; out: the folder of its run."""
    config = config_of(cell)
    words = ["--member", "teacher", *tokens(cell.fields), "--out", out]
    hours = expected_hours(member_config(config, "teacher"), None)
    return Task(_line("train", str(cell.recipe), words), hours, f"teacher {config.network.of_teacher().name}")


def _student(table: PublishedTable, cell: Cell, teacher: str, seed: int) -> Task:
    """Returns the command that trains the student of a table's cell with one seed; teacher: its teacher's folder."""
    want, config = wanted(cell), config_of(cell)
    name = "-".join(_plain(part) for part in (cell.column, cell.row, f"s{seed}"))
    fields = {key: value for key, value in cell.fields.items() if key != _OF_READER}
    words = ["--member", str(cell.member), *tokens(fields), f"--seed={seed}", "--out", _folder(table, name)]
    if want.teacher is not None:
        given = config.teacher is not None
        words += [] if given else ["--teacher", teacher]
    extra = ' --teacher_weights "$WEIGHTS"' if want.teacher is not None and config.teacher is not None else ""
    extra += f' --{_OF_READER} "$STUDENT"' if _OF_READER in cell.fields else ""
    hours = expected_hours(member_config(config, str(cell.member)), want.teacher)
    return Task(_line("train", str(cell.recipe), words) + extra, hours, f"{cell.row}, {cell.column}, seed {seed}")


def _squad(table: PublishedTable, cell: Cell) -> Task:
    """Returns the command for a table's cell with question answering on SQuAD; its hours are not known."""
    words = ["--member", str(cell.member), "--out", _folder(table, "squad")]
    line = _line("train", SQUAD, words) + ' --pretrained "$BERT"'
    return Task(line, Expected(None, None), f"{cell.row}, EM and F1")


def _line(command: str, recipe: str, words: Sequence[str]) -> str:
    """Returns a command of bnn-itrd as a line for a shell, with the folder of the images."""
    return f"{shlex.join(['bnn-itrd', command, recipe, *words])} --data.root {_DATA}"


def small_tasks(table: PublishedTable, runs: Sequence[FoundRun]) -> list[Task]:
    """Returns the commands that train what a table's small version still lacks: its teacher, and a sweep of students.

    The small version is one that two CPU cores can train; the table must have one. runs: the trained networks that
    exist. The sweep uses a teacher that exists with its weights; without one the teacher is trained first. All small
    versions with one recipe share a teacher. The hours are those of the missing trainings. Students that the sweep
    trains although the table does not show them are counted too.
    """
    assert table.small is not None
    recipe, methods = str(table.small["recipe"]), table.small.get("methods")
    cells = [small_cell(cell, table) for cell in table.cells if cell.column in table.small_columns and cell.trains]
    students = [cell for cell in cells if cell.member != "teacher"]
    axes: dict[str, list[str]] = {}
    for cell in students:
        for name, value in cell.fields.items():
            axes.setdefault(name, []).append(value if isinstance(value, str) else json.dumps(value))
    grid = [f"{name}={','.join(dict.fromkeys(values))}" for name, values in axes.items()]
    grid.append("train.seed=" + ",".join(map(str, range(table.seeds))))
    known = {cell.member for cell in students}
    others = config_of(students[0]).students if methods is None else ["plain"]
    students += [_of_sweep(students[0], member) for member in others if member not in known]
    missing, hours = _left(students, runs, table.seeds)
    teacher = teacher_cell(students[0])
    folder = _trained(teacher, runs)
    shown = [cell for cell in cells if cell.member == "teacher"]
    tasks = []
    if folder is None and (missing or _left(shown, runs, 1)[0]):
        tasks.append(_teacher(teacher, _SMALL))
    if missing:
        words = [] if methods is None else ["--methods", str(methods)]
        words += ["--grid", *grid, "--teacher", folder or f"{_SMALL}/teacher", "--out", f"{_SMALL}/{table.name}"]
        of = f"{missing} of {len(students) * table.seeds} trainings"
        tasks.append(Task(_line("sweep", recipe, words), hours, of))
    return tasks


def _left(cells: Sequence[Cell], runs: Sequence[FoundRun], seeds: int) -> tuple[int, Expected]:
    """Returns how many trainings some cells still lack, and their expected hours; each cell has `seeds` trainings."""
    missing, hours = 0, Expected(0.0, 0.0)
    for cell in cells:
        done = {seed for each in fill(cell, runs) if not each.differs for seed in each.seeds}
        left = max(seeds - len(done), 0)
        missing += left
        each = expected_hours(member_config(config_of(cell), str(cell.member)), wanted(cell).teacher)
        for _ in range(left):
            hours += each
    return missing, hours


def _of_sweep(cell: Cell, member: str) -> Cell:
    """Returns a cell that stands for a network that the sweep trains although the table does not show it."""
    return dataclasses.replace(cell, row=member, member=member, fields={}, value=None, spread=None)
