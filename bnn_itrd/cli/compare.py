"""The command ``bnn-itrd compare``, which prints one table of several runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bnn_itrd.cli.options import add_json, check_together
from bnn_itrd.config.parse import parse, parser
from bnn_itrd.console import print_table

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``compare DIR...``, which prints one table of several runs; returns 0."""
    p = parser("bnn-itrd compare", "Print one table of several finished runs, from the comparison.json in each folder.")
    p.add_argument("folders", nargs="+", help="run folders")
    add_json(p)
    p.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parse(p, argv)
    check_together(args, "json", ["markdown"], "prints all as JSON")
    from bnn_itrd.experiments.table import markdown_table, summarise_runs

    rows = summarise_runs([Path(f) for f in args.folders])
    if args.json:
        print(json.dumps(rows, indent=1))
    elif args.markdown:
        print(markdown_table(rows))
    else:
        print_table([{k: str(v) for k, v in row.items()} for row in rows], names=3)
    return 0
