"""The tables of docs/reference/quant.md are made from the code: `python tests/quant/test_docs_tables.py` writes them.

A binariser's row is what its docstring says in lines `Signs: ...`, `Scale: ...`, `Gradient: ...` (of an activation
`Sign of: ...`, `Gradient: ...`), and the options that its constructor names.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bnn_itrd.quant import ACTIVATIONS, SCHEMES, WEIGHTS
from bnn_itrd.quant.parts import part_name

FILE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "quant.md"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines) + "\n"


def said(kind: Callable[..., Any], field: str) -> str:
    found = re.search(rf"^ *{field}: (.+)$", kind.__doc__ or "", re.MULTILINE)
    assert found is not None, f"the docstring of {part_name(kind)} needs a line '{field}: ...'"
    return found[1]


def options(kind: Callable[..., Any], *sizes: str) -> str:
    return ", ".join(f"`{name}`" for name in inspect.signature(kind).parameters if name not in sizes)


def schemes() -> str:
    rows = []
    for name, scheme in SCHEMES.items():
        first = " (first stage)" if scheme.make_weight(1).not_deployable else ""
        between = "" if scheme.nonlinearity == "hardtanh" else f"`{scheme.nonlinearity}`"
        rows.append([f"`{name}`{first}", f"`{scheme.weight}`", f"`{scheme.activation}`", between])
    return table(["scheme", "weight", "activation", "in the place of hardtanh"], rows)


def weights() -> str:
    fields = ("Signs", "Scale", "Gradient")
    rows = [
        [f"`{name}`", *(said(kind, field) for field in fields), options(kind, "out_channels", "fan_in")]
        for name, kind in WEIGHTS.items()
    ]
    return table(["weight", "signs", "scale", "gradient of the sign", "options"], rows)


def activations() -> str:
    rows = [
        [f"`{name}`", *(said(kind, field) for field in ("Sign of", "Gradient")), options(kind, "channels", "axis")]
        for name, kind in ACTIVATIONS.items()
    ]
    return table(["activation", "sign of", "gradient", "options"], rows)


TABLES = {"schemes": schemes, "weights": weights, "activations": activations}


def parts(name: str, text: str) -> tuple[str, str, str]:
    """What stands in front of a table, the table, and what stands behind it."""
    start, end = f"<!-- {name}: made from the code -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(start)
    made, closed, after = rest.partition(end)
    assert found and closed, f"docs/reference/quant.md has no place for the table of {name}"
    return before + start, made, end + after


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_what_the_code_says(name: str) -> None:
    made = parts(name, FILE.read_text())[1]
    assert made == f"\n{TABLES[name]()}\n", "run python tests/quant/test_docs_tables.py"


if __name__ == "__main__":
    text = FILE.read_text()
    for name, make in TABLES.items():
        before, _, after = parts(name, text)
        text = f"{before}\n{make()}\n{after}"
    FILE.write_text(text)
