"""The tables of papers, with their published values, read from tables.yaml."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError, unknown
from bnn_itrd.yaml_files import read_yaml

__all__ = [
    "Cell",
    "PublishedTable",
    "published_accuracy",
    "published_table",
    "small_cell",
    "table_names",
    "tables_named",
    "teacher_cell",
]


@dataclass(frozen=True)
class Cell:
    """One cell of a published table, and how this package trains the network for it.

    value, spread: as printed, None if the paper prints none; measure: what the value is (``top-1 %``). recipe, member,
    fields: the recipe, the network in it, and the fields that replace the recipe's; teacher_fields: fields that replace
    those in the training of its teacher. cannot: why no command of this package fills it, None if one does. key:
    (data, network, method), by which `bnn-itrd compare` finds the value.
    """

    row: str
    column: str
    value: float | None
    spread: float | None
    measure: str
    recipe: str | None = None
    member: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    teacher_fields: Mapping[str, Any] | None = None
    cannot: str | None = None
    key: tuple[str, str, str] | None = None

    @property
    def trains(self) -> bool:
        """Returns whether this package can train the network of this cell."""
        return self.recipe is not None and self.member is not None and self.cannot is None


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper, with its published values and how this package trains what they measure.

    cells: row by row; seeds: the number of trainings behind a published value; setting: how the paper trained, as text;
    of: the name of the table from whose values this one is computed, None for an ordinary table. small: the version
    that two CPU cores can train: its recipe, its columns, the fields that its `teacher` has in place of the recipe's,
    and its `methods` if they are not all students of the recipe.
    """

    name: str
    title: str
    source: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]
    seeds: int = 1
    setting: str = ""
    of: str | None = None
    small: Mapping[str, Any] | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """Returns the labels of the rows, in order."""
        return tuple(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def has_values(self) -> bool:
        """Returns whether the paper prints values for this table; some papers only state a conclusion."""
        return any(cell.value is not None for cell in self.cells)

    @property
    def small_columns(self) -> tuple[str, ...]:
        """Returns the labels of the columns that its small version has; () without a small version."""
        if self.small is None:
            return ()
        return self.columns if self.small["columns"] == "all" else tuple(self.small["columns"])

    def cell(self, row: str, column: str) -> Cell:
        """Returns the cell with these labels of row and column.

        >>> published_table("itrd-1").cell("KD", "R56 R20").value
        70.66
        """
        return next(cell for cell in self.cells if (cell.row, cell.column) == (row, column))


def small_cell(cell: Cell, table: PublishedTable) -> Cell:
    """Returns a copy of a table's cell as the table's small version trains it, which two CPU cores can.

    It has the recipe of the small version, and its teacher has that version's fields.
    """
    assert table.small is not None
    of_teacher = dict(table.small["teacher"])
    fields = {**cell.fields, **of_teacher} if cell.member == "teacher" else cell.fields
    return dataclasses.replace(cell, recipe=str(table.small["recipe"]), fields=fields, teacher_fields=of_teacher)


def teacher_cell(cell: Cell) -> Cell:
    """Returns a cell that stands for the teacher of a cell's student, as the commands of the table train it.

    Its fields are those of the student's that do not belong to students alone, and those of `Cell.teacher_fields`.
    """
    fields = {name: value for name, value in cell.fields.items() if not name.startswith("students.")}
    fields |= cell.teacher_fields or {}
    return dataclasses.replace(cell, row="teacher", member="teacher", fields=fields, value=None, spread=None)


@cache
def _trees() -> dict[str, dict[str, Any]]:
    """Returns the content of tables.yaml, table's name -> nested dict."""
    return dict(read_yaml(Path(__file__).with_name("tables.yaml")))


def table_names() -> list[str]:
    """Returns the names of all tables, in the order of their papers."""
    return list(_trees())


def tables_named(name: str) -> list[PublishedTable]:
    """Returns the table with a name, or the parts that a paper's table was split into: vid-1a and vid-1b for vid-1.

    Raises UserError on an unknown name.

    >>> [table.name for table in tables_named("vid-1")]
    ['vid-1a', 'vid-1b']
    """
    names = [name] if name in _trees() else [n for n in _trees() if n[:-1] == name and n[-1].isalpha()]
    if not names:
        raise unknown("table", name, table_names())
    return [published_table(each) for each in names]


@cache
def published_table(name: str) -> PublishedTable:
    """Returns the table with exactly this name. Raises UserError on an unknown name."""
    if name not in _trees():
        raise unknown("table", name, table_names())
    tree = _trees()[name]
    columns = tree["columns"]
    cells = []
    for label, row in tree["rows"].items():
        values, spreads = (row.get(name) or [None] * len(columns) for name in ("values", "spread"))
        if not len(values) == len(spreads) == len(columns):
            raise UserError(f"tables.yaml: {name}, {label} must have a value for each of the {len(columns)} columns")
        for (column, own), value, spread in zip(columns.items(), values, spreads, strict=True):
            cells.append(_cell(tree, label, row, column, own, value, spread))
    return PublishedTable(
        name=name,
        title=tree["title"],
        source=tree["source"],
        columns=tuple(columns),
        cells=tuple(cells),
        seeds=tree.get("seeds", 1),
        setting=tree.get("setting", ""),
        of=tree.get("of"),
        small=tree.get("small"),
    )


def _cell(
    tree: dict[str, Any],
    label: str,
    row: dict[str, Any],
    column: str,
    own: dict[str, Any],
    value: float | None,
    spread: float | None,
) -> Cell:
    """Returns one cell of a table.

    tree: the table; label, row: the cell's row; column, own: its column; value, spread: as the paper prints them.
    """

    def first(name: str) -> Any:
        """Returns an entry of the row, otherwise of the column, otherwise of the table; None if none has it."""
        return next((each[name] for each in (row, own, tree) if name in each), None)

    method, network = row.get("method"), own.get("network")
    return Cell(
        row=label,
        column=column,
        value=value,
        spread=spread,
        measure=first("measure"),
        recipe=first("recipe"),
        member=first("member"),
        fields={**own.get("fields", {}), **row.get("fields", {})},
        teacher_fields=tree.get("teacher_fields"),
        cannot=first("cannot"),
        key=None if method is None or network is None else ("cifar10", network, method),
    )


@cache
def _known() -> dict[tuple[str, str, str], float]:
    """Returns the published accuracies, (data, network, method) -> accuracy in the first table that has it."""
    known: dict[tuple[str, str, str], float] = {}
    for name in table_names():
        for cell in published_table(name).cells:
            if cell.key is not None and cell.value is not None:
                known.setdefault(cell.key, cell.value)
    return known


def published_accuracy(data: str, network: str, method: str) -> str:
    """Returns the published accuracy of a method on a network and data set, as text; '-' if none is known.

    `bnn-itrd compare` shows it. The papers of ReCU and ITRD report the best epoch on the test images.

    >>> published_accuracy("cifar10", "resnet18", "recu-itrd"), published_accuracy("cifar10", "resnet18", "mine")
    ('94.1', '-')
    """
    value = _known().get((data, network, method))
    return "-" if value is None else f"{value:g}"
