"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["print_table"]


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
