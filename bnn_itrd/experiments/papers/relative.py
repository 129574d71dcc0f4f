"""The relative improvement of ITRD's table 2: the gain over another method, divided by that method's gain over KD."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

__all__ = ["relative_improvement"]


def relative_improvement(values: Mapping[tuple[str, str], float], method: str, other: str) -> float | None:
    """Returns the mean over pairs of (X - Y) / (Y - KD) in percent, or None if no pair has all three values.

    X, Y: accuracies of `method` and `other`; values: (method, pair) -> accuracy, with KD among the methods. A pair with
    Y = KD is left out. The definition is WCoRD's (Chen et al. 2021): it gives the values of ITRD's table 2 from those
    of table 1. The formula in the ITRD paper's footnote, (X - Y) / (X - KD), does not.

    >>> relative_improvement({("a", "p"): 75.0, ("b", "p"): 74.0, ("KD", "p"): 72.0}, "a", "b")
    50.0
    """
    gains = []
    for pair in dict.fromkeys(pair for _, pair in values):
        x, y, kd = (values.get((name, pair)) for name in (method, other, "KD"))
        if x is not None and y is not None and kd is not None and y != kd and method != other:
            gains.append(100 * (x - y) / (y - kd))
    return statistics.fmean(gains) if gains else None
