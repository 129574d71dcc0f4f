"""The command ``bnn-itrd table``, which prints a paper's table with your results, or commands for its empty cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_itrd.cli.options import add_json, check_together
from bnn_itrd.config.parse import parse, parser
from bnn_itrd.console import broken_lines, print_text
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.words import counted

if TYPE_CHECKING:
    from bnn_itrd.experiments.papers.hours import Expected
    from bnn_itrd.experiments.papers.published import PublishedTable
    from bnn_itrd.experiments.papers.runs import FoundRun

__all__ = ["command"]

_TABLE = (
    "Print a published table, and next to its numbers the results of your runs: mean and spread over seeds, epochs, "
    "and how a run's settings differ from the published ones. A run fills the cell that has the data set, network and "
    "method of its config.yaml."
)


def command(argv: Sequence[str]) -> int:
    """Runs ``table NAME --runs DIR``, which prints the table, or without a name a list of all tables; returns 0."""
    p = parser("bnn-itrd table", _TABLE)
    p.add_argument(
        "name", nargs="?", default=None, help="itrd-1, vid-1, srd-3, ...; without a name all tables are listed"
    )
    p.add_argument(
        "--runs",
        action="append",
        default=None,
        help="a folder with runs in it; may be given several times; by default the folders results and sweeps",
    )
    p.add_argument("--missing", action="store_true", help="print commands that fill the empty cells, and their hours")
    p.add_argument("--scale", default="paper", help="paper, or small: a version that two CPU cores train in a night")
    add_json(p)
    p.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parse(p, argv)
    if args.scale not in ("paper", "small"):
        raise unknown("--scale", args.scale, ["paper", "small"])
    check_together(args, "missing", ["json", "markdown"], "prints commands")
    check_together(args, "json", ["markdown"], "prints all as JSON")
    if args.name is None:
        if unfit := [name for name in ("runs", "missing", "json", "markdown") if getattr(args, name)]:
            raise UserError(f"--{unfit[0]} is for one table: name it (bnn-itrd table lists the names)")
        _list_tables()
        return 0
    from bnn_itrd.experiments.papers.published import published_table, table_names, tables_named
    from bnn_itrd.experiments.papers.runs import find_runs

    tables, small = tables_named(args.name), args.scale == "small"
    if small and (without := [table.name for table in tables if table.small is None]):
        having = [name for name in table_names() if published_table(name).small is not None]
        raise UserError(f"{without[0]} has no small version: leave --scale out; {', '.join(having)} have one")
    given = None if args.runs is None else [Path(folder) for folder in args.runs]
    usual = [Path(folder) for folder in ("results", "sweeps") if Path(folder).is_dir()]
    runs = find_runs(usual if given is None else given)
    if args.missing:
        for table in tables:
            print("\n".join(_missing(table, runs, small=small)))
        return 0
    from bnn_itrd.experiments.papers.view import show_table
    from bnn_itrd.experiments.table import markdown_table

    shown = [show_table(table, runs, small=small) for table in tables]
    if args.json:
        print(json.dumps([each.values() for each in shown], indent=1))
    elif args.markdown:
        print("\n\n".join(markdown_table(each.rows()) for each in shown))
    else:
        print("\n\n".join("\n".join(each.lines()).rstrip() for each in shown))
    return 0


def _list_tables() -> None:
    """Prints the name, title and source of every table."""
    from bnn_itrd.experiments.papers.published import published_table, table_names

    for name in table_names():
        table = published_table(name)
        small = ", --scale small" if table.small is not None else ""
        print(name)
        print_text(f"{table.title}\n{table.source}{small}", indent="    ")


# Shell variables in the printed commands, which the user sets to files of his own, because nothing is downloaded.
_GIVEN = {
    "WEIGHTS": "the file of the teacher's weights (without it, the command says where to get it)",
    "STUDENT": "the file of the weights that the student starts from",
    "BERT": "the folder of a BERT model that the library transformers has saved",
}


def _missing(table: PublishedTable, runs: Sequence[FoundRun], *, small: bool) -> list[str]:
    """Returns the commands that fill the empty cells of a paper's table, as lines of a shell script with comments.

    runs: the runs that were found, which fill the other cells. small: whether the commands are for the small version.
    """
    from bnn_itrd.experiments.papers.commands import missing_tasks, small_tasks
    from bnn_itrd.experiments.papers.hours import Expected, speed_notes

    tasks = small_tasks(table, runs) if small else missing_tasks(table, runs)
    if not tasks:
        return [f"# {table.name}: every cell that this package can train is filled"]
    total = Expected(0.0, 0.0)
    for task in tasks:
        total += task.hours
    lines = [
        f"# {table.name}: {counted(len(tasks), 'command')}, {_hours(total)}",
        "# DATA: the folder or file of the images",
    ]
    commands = " ".join(task.command for task in tasks)
    lines += [f"# {name}: {what}" for name, what in _GIVEN.items() if f'"${name}"' in commands]
    lines += [line for note in speed_notes() for line in broken_lines(note, indent="# ")]
    for task in tasks:
        lines += [f"# {task.fills}: {_hours(task.hours)}", task.command]
    return lines


def _hours(hours: Expected) -> str:
    """Returns expected hours in words, on an H100 GPU and on two CPU cores."""

    def text(value: float | None) -> str:
        return "unknown hours" if value is None else f"{value:,.1f} h" if value < 100 else f"{value:,.0f} h"

    return f"{text(hours.h100)} on an H100, {text(hours.cores)} on 2 cores"
