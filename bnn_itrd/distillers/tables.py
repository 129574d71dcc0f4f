"""Writes the tables of docs/reference/distillers.md from the distillation methods' options and facts.

``python -m bnn_itrd.distillers.tables docs/reference/distillers.md`` replaces each table in the page. A table stands
below a comment with its name, such as ``<!-- methods -->``. The module loads without torch.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bnn_itrd.distillers.method import Method
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.distillers.weighted import Weighted

__all__ = ["methods_table", "needs_table", "processes_table", "switches_table", "with_tables"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "the middle one" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _defaults(method: Method) -> str:
    """Returns a method's default options for a cell of the table of methods: "`weight` 0.9, `tau` 4".

    The fields that all methods share, such as `warmup_epochs`, are shown only if a method's default is another. Options
    with the default None are left out, except `stage`.
    """
    usual = {field.name: field.default for field in dataclasses.fields(Weighted)}
    own = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    shown = {name: value for name, value in own.items() if name == "weight" or usual.get(name, ...) != value}
    shown = {name: value for name, value in shown.items() if value is not None or name == "stage"}
    return ", ".join(f"`{name}` {_value(value)}" for name, value in shown.items())


def methods_table() -> str:
    """Returns a Markdown table of the methods: what each compares, its layers, its default options and its source.

    >>> print(methods_table().splitlines()[2])
    | `kd` | softened logits | | `weight` 0.9, `tau` 4 | with `ce: 0.1`; sum over classes, mean over samples, times tau² | Hinton 2015 |
    """  # noqa: E501
    head = ("name", "matches", "owns, trained with the student and dropped afterwards", "options by default")
    lines = [_row(*head, "reduction that the weight belongs to", "source"), _row(*["---"] * 6)]
    for name, kind in METHODS.items():
        facts = kind.facts
        cells = (f"`{name}`", facts.matches, facts.owns, _defaults(kind()), facts.reduction, facts.source)
        lines.append(_row(*cells).replace("|  |", "| |"))
    return "\n".join(lines)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def needs_table() -> str:
    """Returns a Markdown table of the methods that need labels, or a teacher with the student's classes.

    >>> print(needs_table().splitlines()[3])
    | `kd`, `dkd`, `dist` | a teacher with the student's classes; other methods take a teacher with other classes |
    """
    readers = [name for name, kind in METHODS.items() if kind.reads_labels]
    alike = [name for name, kind in METHODS.items() if kind.compares_logits]
    labels = "a label of every training image: they are refused with `data.unlabelled`"
    classes = "a teacher with the student's classes; other methods take a teacher with other classes"
    rows = [_row(_names(readers), f"{labels} ([training.md](../guides/training.md))"), _row(_names(alike), classes)]
    return "\n".join(["| | needs |", "| --- | --- |", *rows])


def processes_table() -> str:
    """Returns a Markdown table for a training in several processes: which samples a method's statistics are taken over.

    >>> print(processes_table().splitlines()[2])
    | `itrd` (`gather: true`), `crd`, `wcord` | the global batch |
    """
    shared = [kind.facts.global_batch.format(name=f"`{name}`") for name, kind in METHODS.items()]
    own = [kind.facts.own_part.format(name=f"`{name}`") for name, kind in METHODS.items()]
    single = [_names([n for n, k in METHODS.items() if not (k.facts.global_batch or k.facts.own_part)])]
    rows: Sequence[tuple[list[str], str]] = (
        (shared, "the global batch"),
        (own, "each process's own part of it"),
        (single, "single samples: no difference, except for the BatchNorm of auxiliary layers, which is local"),
    )
    lines = [_row(", ".join(filter(None, names)), over) for names, over in rows]
    return "\n".join(["| | statistics over |", "| --- | --- |", *lines])


def switches_table() -> str:
    """Returns a Markdown table of the options that a paper compared: their defaults, and the paper's results.

    >>> print(switches_table().splitlines()[8])
    | `itrd.log` | false | off is better (sec. 4.2; no numbers) |
    """
    rows = [
        _row(f"`{name}.{option}`", _value(getattr(kind(), option)), found)
        for name, kind in METHODS.items()
        for option, found in kind.facts.found.items()
    ]
    return "\n".join([_row("option", "default", "what the paper found"), _row(*["---"] * 3), *rows])


def with_tables(page: str) -> str:
    """Returns the text of a page in which each table is replaced by the one that this module makes.

    A table stands below a comment with its name: ``<!-- methods -->``, ``<!-- needs -->``, ``<!-- switches -->`` or
    ``<!-- processes -->``; all four must be in the page.
    """
    tables = {
        "methods": methods_table(),
        "needs": needs_table(),
        "switches": switches_table(),
        "processes": processes_table(),
    }
    for mark, table in tables.items():
        before, found, after = page.partition(f"<!-- {mark} -->\n")
        old = re.match(r"([|].*\n)*", after)
        assert found and old is not None, f"the page has no mark {mark}"
        page = f"{before}{found}{table}\n{after[old.end() :]}"
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text()))
