"""Tables in the terminal, and the last words of a process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

__all__ = ["print_table", "say_at_the_end"]

_SHOW_CURSOR = "\x1b[?25h"  # the progress bar hides it


def say_at_the_end(message: str) -> None:
    """Writes a line to standard error for a process that ends without its interpreter's way out."""
    with contextlib.suppress(OSError):
        os.write(2, f"{_SHOW_CURSOR if sys.stderr.isatty() else ''}{message}\n".encode())


def print_table(rows: Sequence[dict[str, str]], title: str = "") -> None:
    """Rows of text under the first row's keys; the first column to the left, the others to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for i, column in enumerate(rows[0] if rows else []):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row.values()))  # a name may hold what rich reads as markup
    console = Console()
    # Where there is no terminal to measure, a table is not folded at 80 columns.
    (console if console.is_terminal else Console(width=200)).print(table)
