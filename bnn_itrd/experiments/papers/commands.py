"""Functions that make the commands for a published table's empty cells, with the hours that they would take."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from bnn_itrd.config.run import member_config
from bnn_itrd.experiments.papers.cells import config_of, fill, small_cell, tokens, wanted
from bnn_itrd.experiments.papers.hours import Expected, expected_hours
from bnn_itrd.experiments.papers.published import Cell, PublishedTable
from bnn_itrd.experiments.papers.questions import SQUAD
from bnn_itrd.experiments.papers.runs import FoundRun

__all__ = ["Task", "missing_tasks", "small_sweep"]

# A shell variable in the commands: the user sets it to the folder of the images before running them.
_DATA = '"$DATA"'
# A field whose value, a file of weights, only the user knows; its command has a shell variable instead.
_OF_READER = "network.weights"


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
    unless the table has no values at all. A training that several cells need is listed once.
    """
    of_table = [cell for cell in table.cells if cell.trains and (cell.value is not None or not table.has_values)]
    empty = [cell for cell in of_table if not any(found.same_methods for found in fill(cell, runs))]
    teachers: dict[str, Task] = {}
    students: list[Task] = []
    begun: set[str] = set()
    for cell in empty:
        if cell.recipe == SQUAD:
            students.append(_squad(table, cell))
            continue
        want = wanted(cell)
        trained = json.dumps([want.teacher, want.member], sort_keys=True)
        if trained in begun:
            continue
        begun.add(trained)
        config = config_of(cell)
        own = config.network.of_teacher().name
        if cell.member == "teacher" or (want.teacher is not None and config.teacher is None):
            teachers.setdefault(own, _teacher(table, cell, own))
        if cell.member != "teacher":
            students += [_student(table, cell, own, seed) for seed in range(table.seeds)]
    once = {task.command: task for task in [*teachers.values(), *students]}
    return list(once.values())


def _folder(table: PublishedTable, name: str) -> str:
    """Returns the folder in which a command trains a network."""
    return f"runs/{table.name}/{name}"


def _plain(text: str) -> str:
    """Replaces characters that are unusual in a folder's name by _, and returns the text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")


def _teacher(table: PublishedTable, cell: Cell, network: str) -> Task:
    """Returns the command that trains the teacher for a table's cell; network: the name of the teacher's network."""
    fields = {k: v for k, v in cell.fields.items() if not k.startswith("students.")} | dict(cell.teacher_fields or {})
    shown = dataclasses.replace(cell, member="teacher", fields=fields)
    member = member_config(config_of(shown), "teacher")
    words = ["--member", "teacher", *tokens(fields), "--out", _folder(table, f"teacher-{_plain(network)}")]
    return Task(_line("train", str(cell.recipe), words), expected_hours(member, None), f"teacher {network}")


def _student(table: PublishedTable, cell: Cell, network: str, seed: int) -> Task:
    """Returns the command that trains the student of a table's cell with one seed; network: its teacher's, by name."""
    want, config = wanted(cell), config_of(cell)
    name = "-".join(_plain(part) for part in (cell.column, cell.row, f"s{seed}"))
    fields = {key: value for key, value in cell.fields.items() if key != _OF_READER}
    words = ["--member", str(cell.member), *tokens(fields), f"--seed={seed}", "--out", _folder(table, name)]
    if want.teacher is not None:
        given = config.teacher is not None
        words += [] if given else ["--teacher", _folder(table, f"teacher-{_plain(network)}")]
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


def small_sweep(table: PublishedTable, runs: Sequence[FoundRun]) -> tuple[Task, int] | None:
    """Returns the command of a sweep that fills a table's small version, and the number of trainings it still lacks.

    The small version is one that two CPU cores can train; the result is None if the table has none. runs: the trained
    networks that exist. The hours are those of the missing trainings. Students that the sweep trains although the table
    does not show them are counted too.
    """
    if table.small is None:
        return None
    recipe, methods = str(table.small["recipe"]), table.small.get("methods")
    chosen = table.columns if table.small["columns"] == "all" else table.small["columns"]
    cells = [small_cell(cell, recipe) for cell in table.cells if cell.column in chosen and cell.trains]
    axes: dict[str, list[str]] = {}
    for cell in cells:
        for name, value in cell.fields.items():
            axes.setdefault(name, []).append(value if isinstance(value, str) else json.dumps(value))
    grid = [f"{name}={','.join(dict.fromkeys(values))}" for name, values in axes.items()]
    grid.append("train.seed=" + ",".join(map(str, range(table.seeds))))
    out = f"sweeps/{table.name}-small"
    words = [*([] if methods is None else ["--methods", str(methods)]), "--grid", *grid, "--out", out]
    others = ["teacher", *(config_of(cells[0]).students if methods is None else ["plain"])]
    known = {cell.member for cell in cells}
    cells += [_of_sweep(cells[0], member) for member in others if member not in known]
    hours, missing, points = Expected(0.0, 0.0), 0, 0
    for cell in cells:
        count = 1 if cell.member == "teacher" else table.seeds
        done = {seed for each in fill(cell, runs) if not each.differs for seed in each.seeds}
        left = max(count - len(done), 0)
        points, missing = points + count, missing + left
        want = wanted(cell)
        each = expected_hours(member_config(config_of(cell), str(cell.member)), want.teacher)
        for _ in range(left):
            hours += each
    return Task(_line("sweep", recipe, words), hours, f"{missing} of {points} trainings"), missing


def _of_sweep(cell: Cell, member: str) -> Cell:
    """Returns a cell that stands for a network that the sweep trains although the table does not show it."""
    return dataclasses.replace(cell, row=member, member=member, fields={}, value=None, spread=None)
