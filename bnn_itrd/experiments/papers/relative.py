"""The relative improvement, the measure in table 2 of the ITRD paper, which compares two methods with KD."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

__all__ = ["relative_improvement"]


def relative_improvement(values: Mapping[tuple[str, str], float], method: str, other: str) -> float | None:
    """Returns how much further above KD a method is than another method, in percent: (X - Y) / (Y - KD).

    X and Y are the accuracies of `method` and `other`; the result is the mean over the pairs of teacher and student. A
    pair that lacks a value, or has Y = KD, is left out; None if no pair is left. values: (method, pair) -> accuracy;
    one of the methods must be called KD. The definition is WCoRD's (Chen et al. 2021). It gives the values in table 2
    of the ITRD paper from its table 1; the formula in that paper's footnote, (X - Y) / (X - KD), does not.

    >>> relative_improvement({("a", "p"): 75.0, ("b", "p"): 74.0, ("KD", "p"): 72.0}, "a", "b")
    50.0
    """
    gains = []
    for pair in dict.fromkeys(pair for _, pair in values):
        x, y, kd = (values.get((name, pair)) for name in (method, other, "KD"))
        if x is not None and y is not None and kd is not None and y != kd and method != other:
            gains.append(100 * (x - y) / (y - kd))
    return statistics.fmean(gains) if gains else None
