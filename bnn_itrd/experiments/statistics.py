"""Statistics of a sweep: mean and standard deviation over seeds, and Welch's t-test between methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Welch", "method_statistics", "std_interval", "table_cells", "table_notes", "welch"]

LEVEL = 0.05
LARGER, WITHIN, CANNOT = "larger than the spread", "within the spread", "cannot be tested"


@dataclass(frozen=True)
class Welch:
    """The result of Welch's t-test: t, degrees of freedom, and the two-sided p value."""

    t: float
    df: float
    p: float

    @property
    def verdict(self) -> str:
        """Returns the result in words, for a table: whether p is below 0.05."""
        return LARGER if self.p < LEVEL else WITHIN


def welch(a: Sequence[float], b: Sequence[float]) -> Welch | None:
    """Computes Welch's t-test of mean(a) - mean(b) for samples of n and m values of any variances (Welch 1947).

        t = (mean a - mean b) / sqrt(u + v)      u = var a / n, v = var b / m, sample variances
        df = (u + v)^2 / (u^2 / (n - 1) + v^2 / (m - 1))

    Returns None if a sample has fewer than two values, or if all values within each sample are equal.

    >>> round(welch([90.0, 91.0, 92.0], [88.0, 89.0, 90.0]).t, 3)
    2.449
    """
    if len(a) < 2 or len(b) < 2:
        return None
    u, v = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    if u + v == 0:
        return None
    from scipy.stats import t as student_t

    t = (statistics.fmean(a) - statistics.fmean(b)) / math.sqrt(u + v)
    df = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    return Welch(t, df, float(2 * student_t.sf(abs(t), df)))


def std_interval(n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns a confidence interval for a standard deviation, as two factors on the one measured from n values.

    The values are assumed to be normally distributed. With 3 values and a measured standard deviation of 1, the true
    one is between 0.52 and 6.28 with a confidence of 95 %:

    >>> [round(end, 2) for end in std_interval(3)]
    [0.52, 6.28]
    """
    from scipy.stats import chi2

    low, high = chi2.ppf([(1 + confidence) / 2, (1 - confidence) / 2], n - 1)
    return math.sqrt((n - 1) / low), math.sqrt((n - 1) / high)


def _reference_of(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Returns the name of the row of a sweep's table with which another row is compared; "" if there is none.

    reference: the user's choice. If it names a row, that row is returned; if a student, then that student's row with
    the same values of the grid. A name of both means the student, unless there is no other student.
    """
    students = {other["student"] for other in rows}
    if reference in {other["row"] for other in rows} and (reference not in students or len(students) == 1):
        return reference
    common = {f: v for f, v in row["fields"].items() if not f.startswith("students.")}
    for other in rows:
        settings = {f: v for f, v in other["fields"].items() if not f.startswith("students.")}
        if other["student"] == reference and settings == common:
            return str(other["row"])
    return ""


def method_statistics(results: Sequence[Mapping[str, Any]], reference: str) -> list[dict[str, Any]]:
    """Returns statistics over seeds: a dict for each method and setting, in the order of the results.

    results: dicts with row, student, fields (without the seed), seed, and top1: the percentage on the test images, None
    if the training is not finished. reference: the student or row with which the others are compared.
    Each dict of the result has row, student, fields, seeds, planned (the number of trainings), top1 (a list), mean, and
    std (with n - 1; None for fewer than two values). The comparison is in reference (the name of a row), difference
    (of the means), t, df, p and verdict; each is None if it cannot be computed.
    """
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        row = rows.setdefault(
            result["row"],
            {"row": result["row"], "student": result["student"], "fields": dict(result["fields"])}
            | {"planned": 0, "seeds": [], "top1": []},
        )
        row["planned"] += 1
        if result["top1"] is not None:
            row["seeds"].append(result["seed"])
            row["top1"].append(result["top1"])
    table = list(rows.values())
    for row in table:
        values = row["top1"]
        row["mean"] = statistics.fmean(values) if values else None
        row["std"] = statistics.stdev(values) if len(values) > 1 else None
    for row in table:
        name = _reference_of(row, table, reference)
        row |= {"reference": None, "difference": None, "t": None, "df": None, "p": None, "verdict": None}
        if not name or name == row["row"]:
            continue
        other = rows[name]
        row["reference"] = name
        if row["mean"] is None or other["mean"] is None:
            continue
        row["difference"] = row["mean"] - other["mean"]
        test = welch(row["top1"], other["top1"])
        if test is not None:
            row |= {"t": test.t, "df": test.df, "p": test.p, "verdict": test.verdict}
        else:
            row["verdict"] = CANNOT
    return table


def table_notes(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns sentences for the user: how to read a table of `method_statistics`, and what it does not show."""
    counts = [len(row["top1"]) for row in table if row["top1"]]
    tested = [row for row in table if row["p"] is not None]
    lines = ["Top-1 of the last epoch on the test images; ± is the sample standard deviation over seeds (n - 1)."]
    if counts and min(counts) < 2:
        lines.append("With a single seed the spread is not known, so a difference may be due to chance.")
    if tested:
        lines.append(
            f"Differences are compared with the spread by Welch's t-test; '{LARGER}' is p < {LEVEL:g}, two-sided. The "
            "test assumes independent and normal values, which is not checked."
        )
        few = min(len(row["top1"]) for row in tested)
        if few < 10:
            low, high = std_interval(few)
            lines.append(
                f"{few} seeds are few: the true standard deviation lies between {low:.2f} and {high:.3g} times the one "
                f"shown, with 95 % confidence. '{WITHIN}' means that these runs show no difference, not that the "
                "methods are equally good."
            )
        if len(tested) > 1:
            lines.append(
                f"There are {len(tested)} comparisons: if all methods were equally good, {LEVEL * len(tested):.1g} of "
                f"them would still be expected to be '{LARGER}'."
            )
    if any(len(row["top1"]) < row["planned"] for row in table):
        lines.append("Some trainings are missing; their rows have fewer seeds.")
    return lines


def table_cells(table: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the table of `method_statistics` as rows of text (column -> cell), for the terminal and Markdown."""

    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        {
            "method": row["row"],
            "seeds": f"{len(row['top1'])}" + (f" of {row['planned']}" if len(row["top1"]) < row["planned"] else ""),
            "top-1 %": cell(row["mean"], ".2f") + ("" if row["std"] is None else f" ± {row['std']:.2f}"),
            "to the reference": cell(row["difference"], "+.2f"),
            "df": cell(row["df"], ".1f"),
            "p": cell(row["p"], ".3f"),
            "difference is": "reference" if row["reference"] is None else row["verdict"] or "-",
        }
        for row in table
    ]
