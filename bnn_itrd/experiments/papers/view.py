"""The class that shows a published table with the user's results, as text, as rows for Markdown, and for JSON."""

from __future__ import annotations

import dataclasses
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnn_itrd.experiments.papers.cells import Filled, fill, wanted
from bnn_itrd.experiments.papers.published import Cell, PublishedTable, published_table, small_cell, teacher_cell
from bnn_itrd.experiments.papers.relative import relative_improvement
from bnn_itrd.experiments.papers.runs import FoundRun

__all__ = ["Shown", "show_table"]

# Characters of a line, and of the labels of rows.
_WIDTH = 80
_LABEL = 23


@dataclass(frozen=True)
class Shown:
    """A published table with the trained networks that belong in its cells.

    cells: pairs (cell, groups of trained networks with the closest setting first); unfinished: networks that would
    belong in a cell, or be the teacher of one, if their training were finished; small: the recipe of the table's
    version for two CPU cores, None for the table itself; cells_of_other: the same pairs for the table from whose values
    this one is computed.
    """

    table: PublishedTable
    cells: tuple[tuple[Cell, tuple[Filled, ...]], ...]
    unfinished: tuple[FoundRun, ...] = ()
    small: str | None = None
    cells_of_other: tuple[tuple[Cell, tuple[Filled, ...]], ...] = ()

    @property
    def filled(self) -> list[tuple[Cell, tuple[Filled, ...]]]:
        """Returns the entries of `cells` that have trained networks."""
        return [(cell, found) for cell, found in self.cells if found]

    @property
    def _digits(self) -> int:
        """Returns the number of decimals of the published values, 1 or 2."""
        values = [cell.value for cell in self.table.cells if cell.value is not None]
        return 1 if all(round(value, 1) == value for value in values) else 2

    def lines(self) -> list[str]:
        """Returns the table as lines of text of at most 80 characters."""
        table = self.table
        head = f"{table.name}: {table.title}" if self.small is None else f"{table.name}, small: {table.title}"
        facts = [table.source, self.cells[0][0].measure, table.setting]
        lines = [*textwrap.wrap(head, _WIDTH), *textwrap.wrap("; ".join(filter(None, facts)), _WIDTH), ""]
        lines += [*self._grid(), ""]
        if table.of is not None:
            return lines + textwrap.wrap(_RELATIVE.format(table.of), _WIDTH)
        marks = self._marks()
        if self.filled:
            lines += self._list(marks)
        else:
            lines.append("No run fills a cell.")
        lines += _left_out(self)
        return lines

    def _marks(self) -> dict[tuple[str, ...], str]:
        """Returns differences from the published setting -> the number of their footnote."""
        marks: dict[tuple[str, ...], str] = {}
        for _, found in self.filled:
            for each in found:
                if each.differs:
                    marks.setdefault(each.differs, str(len(marks) + 1))
        return marks

    def _grid(self) -> list[str]:
        """Returns the lines of the table itself: the published values, and below each row the user's results."""
        columns = list(dict.fromkeys(cell.column for cell, _ in self.cells))
        by_label = {(cell.row, cell.column): (cell, found) for cell, found in self.cells}
        digits = self._digits
        texts: dict[str, list[tuple[str, list[str]]]] = {}
        for row in dict.fromkeys(cell.row for cell, _ in self.cells):
            own = [by_label[row, column] for column in columns]
            rows = [(row, [_value(cell.value, cell.spread, digits) for cell, _ in own])]
            if self.table.of is not None:
                ours = [relative_improvement(self._other, row, column) for column in columns]
                rows.append(("  ours", [_value(value, None) for value in ours]))
            elif any(found for _, found in own):
                rows.append(("  ours", [_value(found[0].mean, found[0].spread) if found else "-" for _, found in own]))
            texts[row] = rows
        widths = [
            max(*(len(part) for part in column.split()), *(len(v[i]) for rows in texts.values() for _, v in rows))
            for i, column in enumerate(columns)
        ]
        lines: list[str] = []
        for chunk in _chunks(widths, _WIDTH - _LABEL):
            lines += [*_heads([columns[i] for i in chunk], [widths[i] for i in chunk])]
            for rows in texts.values():
                for label, values in rows:
                    cells = "".join(f"  {values[i]:>{widths[i]}}" for i in chunk)
                    lines.append(f"{label[:_LABEL]:<{_LABEL}}{cells}".rstrip())
            lines.append("")
        return lines[:-1]

    @property
    def _other(self) -> dict[tuple[str, str], float]:
        """Returns the user's results in the table from which this one is computed, (row, column) -> mean."""
        return {(cell.row, cell.column): found[0].mean for cell, found in self.cells_of_other if found}

    def _list(self, marks: dict[tuple[str, ...], str]) -> list[str]:
        """Returns lines with the user's results, seeds, epochs and footnotes; marks: the result of `_marks`."""
        lines = [f"{'Ours':<{_LABEL + 15}}{'last epoch':>14}  {'seeds':>7} {'epochs':>6} {'differs':>8}"]
        for cell, found in self.filled:
            for each in found:
                name = cell.row if len(self.table.columns) == 1 else f"{cell.row}, {cell.column}"
                seeds = ",".join(map(str, each.seeds))
                value = _value(each.mean, each.spread)
                mark = marks.get(each.differs, "")
                lines.append(
                    f"{name[: _LABEL + 14]:<{_LABEL + 15}}{value:>14}  {seeds:>7} {each.epochs:>6} {mark:>8}".rstrip()
                )
        lines.append("")
        if marks:
            lines.append("Differences from the published setting, whose values are in brackets:")
        for differs, mark in marks.items():
            lines += textwrap.wrap("; ".join(differs), _WIDTH, initial_indent=f"{mark:>2}  ", subsequent_indent="    ")
        return lines + self._teachers()

    def _teachers(self) -> list[str]:
        """Returns lines with the accuracy of the teachers of the user's students, for each column."""
        known: dict[str, list[float]] = {}
        for cell, found in self.filled:
            known.setdefault(cell.column, []).extend(
                run.teacher.top1
                for each in found
                for run in each.runs
                if run.teacher is not None and run.teacher.top1 is not None
            )
        published = {c.column: c.value for c in self.table.cells if c.member == "teacher" and c.value is not None}
        lines = []
        for column, values in known.items():
            if values:
                theirs = f" (published: {published[column]:g})" if column in published else ""
                seen = f"{min(values):.2f}" if max(values) - min(values) < 0.05 else _range(values)
                lines += textwrap.wrap(f"Teacher of our students, {column}: {seen} %{theirs}", _WIDTH)
        return lines

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows (column -> value) of a Markdown table, one for each cell and setting."""
        rows = []
        for cell, found in self.cells:
            for each in found or (None,):
                rows.append(
                    {
                        "row": cell.row,
                        "column": cell.column,
                        "published": _value(cell.value, cell.spread, self._digits),
                        "ours": "-" if each is None else _value(each.mean, each.spread),
                        "seeds": "-" if each is None else ", ".join(map(str, each.seeds)),
                        "epochs": "-" if each is None else each.epochs,
                        "differs": "-" if each is None else "; ".join(each.differs) or "nothing",
                    }
                )
        return rows

    def values(self) -> dict[str, Any]:
        """Returns the table as plain values, which `bnn-itrd table --json` prints."""
        cells = []
        for cell, found in self.cells:
            ours = [
                {
                    "mean": each.mean,
                    "spread": each.spread,
                    "values": list(each.values),
                    "seeds": [run.seed for run in each.runs],
                    "epochs": each.epochs,
                    "teachers": [None if run.teacher is None else run.teacher.top1 for run in each.runs],
                    "differs": list(each.differs),
                    "runs": [str(run.folder) for run in each.runs],
                }
                for each in found
            ]
            named = ("row", "column", "value", "spread", "measure", "recipe", "member", "cannot")
            cells.append({name: getattr(cell, name) for name in named} | {"ours": ours})
        return {
            "table": self.table.name,
            "title": self.table.title,
            "source": self.table.source,
            "setting": self.table.setting,
            "small": self.small,
            "cells": cells,
            "unfinished": [{"folder": str(run.folder), "epochs": run.epochs, "of": run.of} for run in self.unfinished],
        }


_RELATIVE = (
    "(X - Y) / (Y - KD) in percent, the mean over the pairs that have all three values. It gives the published values "
    "from those of {0}; the formula in the paper's footnote, which divides by X - KD, does not."
)


def _range(values: Sequence[float]) -> str:
    """Returns the smallest and the largest value and the mean, as text."""
    return f"{min(values):.2f} to {max(values):.2f}, mean {statistics.fmean(values):.2f}"


def _value(value: float | None, spread: float | None, digits: int = 2) -> str:
    """Returns a value and its standard deviation, if there is one, as text; '-' without a value."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if spread is None else f"{value:.{digits}f}±{spread:.{digits}f}"


def _chunks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Splits columns into groups that fit a line; returns the indices in each.

    widths: the columns' widths; room: the characters of a line.
    """
    chunks: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if chunks[-1] and sum(widths[j] + 2 for j in chunks[-1]) + width + 2 > room:
            chunks.append([])
        chunks[-1].append(i)
    return chunks


def _heads(columns: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Returns the lines of the columns' labels, each label with one word below the other."""
    words = [column.split() for column in columns]
    most = max(len(w) for w in words)
    padded = [[""] * (most - len(w)) + w for w in words]
    return [
        " " * _LABEL + "".join(f"  {w[i]:>{width}}" for w, width in zip(padded, widths, strict=True))
        for i in range(most)
    ]


def _left_out(shown: Shown) -> list[str]:
    """Returns lines about cells that no command fills, with the reason, and about unfinished trainings."""
    lines = []
    for reason in dict.fromkeys(cell.cannot for cell, _ in shown.cells if cell.cannot is not None):
        rows = list(dict.fromkeys(cell.row for cell, _ in shown.cells if cell.cannot == reason))
        some = ", ".join(rows) if len(rows) < len(shown.table.rows) else "All rows"
        lines += ["", *textwrap.wrap(f"{some}: {reason}.", _WIDTH)]
    for run in shown.unfinished:
        told = f"Not trained to its end: {run.folder} (epoch {run.epochs} of {run.of})"
        lines += textwrap.wrap(told, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return lines


def show_table(table: PublishedTable, runs: Sequence[FoundRun], *, small: bool = False) -> Shown:
    """Finds the trained networks that belong in a table's cells and returns the table with them.

    small: True: the table's version for two CPU cores, which has only some of its columns.
    """
    if table.of is not None:
        other = published_table(table.of)
        filled = tuple((cell, tuple(fill(cell, runs))) for cell in other.cells)
        return Shown(table, tuple((cell, ()) for cell in table.cells), cells_of_other=filled)
    recipe = None if not small or table.small is None else str(table.small["recipe"])
    own = [cell for cell in table.cells if recipe is None or cell.column in table.small_columns]
    trained = [cell if recipe is None else small_cell(cell, table) for cell in own]
    cells = tuple((cell, tuple(fill(made, runs, published=cell))) for cell, made in zip(own, trained, strict=True))
    unfinished = tuple(run for run in runs if run.epochs < run.of and _would_serve(run, trained))
    return Shown(table, cells, unfinished, recipe)


def _would_serve(run: FoundRun, cells: Sequence[Cell]) -> bool:
    """Returns whether a network would belong in one of the cells, or be its teacher, if its training were finished."""
    whole = dataclasses.replace(run, epochs=run.of)
    return any(
        fill(cell, [whole]) or (fill(teacher_cell(cell), [whole]) and wanted(cell).teacher_data is not None)
        for cell in cells
        if cell.trains
    )
