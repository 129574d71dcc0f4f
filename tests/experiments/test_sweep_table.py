"""The table of a sweep against NumPy and SciPy, and that of the repository's sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from helpers.sweeps import difference_on_page, table_of_page

from bnn_itrd.distillers import METHODS
from bnn_itrd.experiments.statistics import method_statistics, std_interval, table_cells, table_notes, welch


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 3), (3, 5), (12, 4)])
def test_welch_is_scipys(n: int, m: int) -> None:
    rng = np.random.default_rng(n * 100 + m)
    a, b = rng.normal(80, 3, n), rng.normal(82, 0.5, m)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    ours = welch(list(a), list(b))
    assert ours is not None
    assert (ours.t, ours.df, ours.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue), rel=1e-9)


def test_welch_says_nothing_without_spread() -> None:
    assert welch([1.0], [1.0, 2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None


def test_std_interval() -> None:
    # Tables of the chi-square distribution with 2 degrees of freedom: 0.0506 and 7.378 at 2.5 and 97.5 %.
    assert std_interval(3) == pytest.approx(((2 / 7.378) ** 0.5, (2 / 0.0506) ** 0.5), rel=1e-3)


def results(values: dict[str, list[float | None]], fields: dict[str, str] | None = None) -> list[dict[str, Any]]:
    return [
        {"row": name, "student": name, "fields": fields or {}, "seed": seed, "top1": value}
        for name, column in values.items()
        for seed, value in enumerate(column)
    ]


def test_table_is_numpys() -> None:
    values = {"plain": [80.0, 81.0, 79.5], "kd": [84.0, 84.5, 83.9], "at": [80.4, 81.9, 79.0]}
    table = method_statistics(results(values), "plain")
    for row, (name, column) in zip(table, values.items(), strict=True):
        assert row["row"] == name and row["top1"] == column and row["seeds"] == [0, 1, 2]
        assert row["mean"] == pytest.approx(np.mean(column))
        assert row["std"] == pytest.approx(np.std(column, ddof=1))
        if name == "plain":
            assert row["reference"] is row["difference"] is row["p"] is None
            continue
        expected = scipy.stats.ttest_ind(column, values["plain"], equal_var=False)
        assert row["difference"] == pytest.approx(np.mean(column) - np.mean(values["plain"]))
        assert row["p"] == pytest.approx(expected.pvalue)
    assert [row["verdict"] for row in table] == [None, "larger than the spread", "within the spread"]
    cells = table_cells(table)
    assert cells[0]["top-1 %"] == "80.17 ± 0.76" and cells[0]["difference is"] == "reference"
    assert cells[1]["to the reference"] == "+3.97" and cells[1]["p"] == f"{table[1]['p']:.3f}"


def test_reference_of_the_same_setting() -> None:
    table = [("recu", "plain", 1.0), ("xnor", "plain", 2.0), ("recu", "kd", 4.0), ("xnor", "kd", 8.0)]
    rows = [
        {"row": f"{weight}-{student}", "student": student, "seed": 0, "top1": top1}
        | {"fields": {"scheme.weight": weight, f"students.{student}.kd.tau": "2"}}
        for weight, student, top1 in table
    ]
    by_student = method_statistics(rows, "plain")
    assert [row["reference"] for row in by_student] == [None, None, "recu-plain", "xnor-plain"]
    assert [row["difference"] for row in by_student] == [None, None, 3.0, 6.0]
    assert by_student[2]["verdict"] == "cannot be tested"  # one seed
    assert [row["difference"] for row in method_statistics(rows, "xnor-plain")] == [-1.0, None, 2.0, 6.0]


def test_a_reference_that_is_a_student_and_a_row() -> None:
    """`recu` with ReCU's weights has the row `recu`: under XNOR's, `xnor-recu` is still the reference."""
    rows = [
        {"row": row, "student": student, "fields": {"scheme.weight": weight}, "seed": 0, "top1": top1}
        for row, student, weight, top1 in [
            ("recu", "recu", "recu", 1.0),
            ("xnor-recu", "recu", "xnor", 2.0),
            ("recu-itrd", "recu-itrd", "recu", 4.0),
            ("xnor-recu-itrd", "recu-itrd", "xnor", 8.0),
        ]
    ]
    assert [row["reference"] for row in method_statistics(rows, "recu")] == [None, None, "recu", "xnor-recu"]
    assert [row["reference"] for row in method_statistics(rows[:2], "recu")] == [None, "recu"]  # schemes of one student


def test_missing_results() -> None:
    table = method_statistics(results({"plain": [None, None], "kd": [80.0, None]}), "plain")
    assert table[0]["mean"] is None and table[1]["difference"] is None and table[1]["std"] is None
    assert table_cells(table)[1]["seeds"] == "1 of 2"
    assert any("missing" in line for line in table_notes(table))


def test_notes_say_how_little() -> None:
    def notes(values: dict[str, list[float | None]]) -> str:
        return " ".join(table_notes(method_statistics(results(values), "plain")))

    few = notes({"plain": [1.0, 2.0], "a": [1.0, 3.0], "b": [2.0, 4.0]})
    assert "2 seeds are few" in few and "2 comparisons" in few and "0.1 of them" in few
    one = notes({"plain": [1.0], "a": [2.0]})
    assert "a single seed the spread is not known" in one and "Welch" not in one
    values = list(np.random.default_rng(0).normal(size=12))
    assert "are few" not in notes({"plain": values, "a": values[::-1]})


@pytest.mark.parametrize(("folder", "column"), [("methods", 1), ("methods-cifar10", 3)])
def test_the_methods_table_is_that_of_the_results(folder: str, column: int) -> None:
    """results/: every distiller with 3 seeds, the table made of its points; sweep.md shows the same numbers."""
    root = Path(__file__).parents[2]
    record = json.loads((root / "results" / folder / "sweep.json").read_text())
    made = method_statistics(record["points"], record["reference"])
    assert made == record["table"] and table_cells(made)
    by_student = {row["student"]: row for row in made}
    assert by_student.keys() <= {"plain", *METHODS} and len(by_student) > 20
    assert all(len(row["seeds"]) == 3 for row in made), "every seed of every method"
    rows = table_of_page(root / "docs" / "guides" / "sweep.md", "methods")
    assert {row[0].strip("`") for row in rows} == by_student.keys()
    for name, *cells in rows:
        row = by_student[name.strip("`")]
        assert cells[column - 1] == f"{row['mean']:.2f} ± {row['std']:.2f}"
        assert cells[column] == difference_on_page(row)
