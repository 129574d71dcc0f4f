"""Functions that print on the terminal: tables, text, and a last message of a process that is about to end."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["broken_lines", "print_record", "print_table", "print_text", "say_at_the_end"]

# The control code that shows the cursor again, which the progress bar hides.
_SHOW_CURSOR = "\x1b[?25h"


def say_at_the_end(message: str) -> None:
    """Writes a line to standard error without Python's buffers, because `os._exit` or a signal would lose those."""
    with contextlib.suppress(OSError):
        os.write(2, f"{_SHOW_CURSOR if sys.stderr.isatty() else ''}{message}\n".encode())


def print_table(rows: Sequence[dict[str, str]], title: str = "", *, names: int = 1) -> None:
    """Prints rows (column -> text, the same columns in each) as a table that fits the width of the terminal.

    names: the number of leading columns that name a row. If the table is too wide, its headers are broken between
    words. If it is still too wide, it is split into several tables, each of which has the name columns. If a column
    does not fit next to those, each row is printed as a block of lines. No word is broken.
    """
    if not rows:
        return
    from rich.text import Text

    console = _console()
    if title:
        console.print(Text(title, style="italic"))
    parts = _split_columns(rows, console.width, names)
    if parts:
        for part in parts:
            _print_part(console, rows, part, names)
        return
    for row in rows:
        columns = list(row)
        length = max(map(len, columns[names:]), default=0)
        lines = ["  ".join(row[column] for column in columns[:names])]
        lines += [f"  {column.ljust(length)}  {row[column]}" for column in columns[names:]]
        console.print(Text("\n".join(lines)), soft_wrap=True)


def broken_lines(text: str, *, indent: str = "", behind: str = "  ") -> list[str]:
    """Breaks a text between words into lines that fit the terminal, and returns them; without a terminal, 80 columns.

    Line breaks in the text are kept. indent: a text put in front of every line; behind: a text put after `indent` on
    the second and later lines of a line that was broken.

    >>> broken_lines("two words"), broken_lines("", indent="    ")
    (['two words'], [''])
    """
    width = shutil.get_terminal_size().columns
    lines = []
    for line in text.split("\n"):
        broken = textwrap.wrap(
            line, width, initial_indent=indent, subsequent_indent=indent + behind,
            break_long_words=False, break_on_hyphens=False, replace_whitespace=False, drop_whitespace=True,
        )  # fmt: skip
        lines += broken or [""]
    return lines


def print_text(text: str, *, indent: str = "", behind: str = "  ") -> None:
    """Prints a text broken into lines that fit the terminal; the arguments are those of `broken_lines`."""
    print("\n".join(broken_lines(text, indent=indent, behind=behind)), flush=True)


def print_record(line: str) -> None:
    """Prints a line that scripts read: broken to fit a terminal, but as one line into a pipe or file."""
    if sys.stdout.isatty():
        print_text(line)
    else:
        print(line, flush=True)


def _console() -> Console:
    """Returns a rich console as wide as the terminal; without a terminal, 80 columns."""
    from rich.console import Console

    return Console(width=shutil.get_terminal_size().columns)


def _split_columns(rows: Sequence[dict[str, str]], width: int, names: int) -> list[dict[str, int]]:
    """Splits columns into tables that fit the width; returns (column -> its width) for each, [] if one cannot fit."""
    from rich.cells import cell_len

    cells = {column: max(cell_len(row[column]) for row in rows) for column in rows[0]}
    whole = {column: max(size, cell_len(column)) for column, size in cells.items()}
    if _table_width(whole) <= width:
        return [whole]
    narrow = {column: max(size, *map(cell_len, column.split())) for column, size in cells.items()}
    first, rest = list(narrow.items())[:names], list(narrow.items())[names:]
    parts = [dict(first)]
    for column, size in rest:
        if len(parts[-1]) > names and _table_width({**parts[-1], column: size}) > width:
            parts.append(dict(first))
        parts[-1][column] = size
    return parts if all(_table_width(part) <= width for part in parts) else []


def _table_width(columns: Mapping[str, int]) -> int:
    """Returns the width of a table whose columns have these widths, with its borders and the spaces between columns."""
    return sum(columns.values()) + 3 * len(columns) + 1


def _print_part(console: Console, rows: Sequence[dict[str, str]], part: Mapping[str, int], names: int) -> None:
    """Prints some columns of the rows as a table: the first `names` aligned to the left, the others to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for i, (column, size) in enumerate(part.items()):
        table.add_column(Text(column), justify="left" if i < names else "right", width=size)
    for row in rows:
        table.add_row(*(Text(row[column]) for column in part))  # rich reads [brackets] in a str as markup
    console.print(table)
