"""docs/reference/distillers.md holds the tables that the methods make."""

from __future__ import annotations

from pathlib import Path

from bnn_itrd.distillers import METHODS
from bnn_itrd.distillers.tables import methods_table, needs_table, processes_table, switches_table, with_tables

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "distillers.md"


def test_the_page_holds_the_tables_of_the_code() -> None:
    """Where this fails: python -m bnn_itrd.distillers.tables docs/reference/distillers.md."""
    text = PAGE.read_text()
    assert with_tables(text) == text
    for table in (methods_table(), needs_table(), switches_table(), processes_table()):
        assert table in text


def test_a_row_of_the_methods() -> None:
    row = next(line for line in methods_table().splitlines() if line.startswith("| `dkd` |"))
    assert row == (
        "| `dkd` | target and non-target part of softened logits | | `weight` 1, `warmup_epochs` 20, `alpha` 1, "
        "`beta` 8, `tau` 4 | as `kd` | Zhao 2022 |"
    )


def test_rows_of_needs_and_processes() -> None:
    labels, classes = needs_table().splitlines()[2:]
    assert labels.startswith("| `dkd`, `crd`, `wcord` | a label of every") and classes.startswith(
        "| `kd`, `dkd`, `dist` |"
    )
    shared, own, single = processes_table().splitlines()[2:]
    assert shared == "| `itrd` (`gather: true`), `crd`, `wcord` | the global batch |"
    assert "`dist` (its columns), `itrd` with `gather: false`, `cc`" in own
    assert single.startswith("| `kd`, `dkd`, `lwf`, `vid`, `fitnet`,")


def test_every_method_stands_in_the_tables() -> None:
    for name in METHODS:
        assert f"| `{name}` |" in methods_table()
        assert f"`{name}`" in processes_table()
