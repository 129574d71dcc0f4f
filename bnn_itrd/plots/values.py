"""Functions that read numbers for charts from the content of comparison.json, in which every number may be missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["Point", "curve", "last_and_best", "log_suits", "model_name", "number", "second_half"]

Point = tuple[float, float]


def number(value: Any) -> float | None:
    """Returns the value as a finite float, or None for anything else (None, text, a bool, NaN).

    >>> number(3), number(None), number("3")
    (3.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def model_name(model: dict[str, Any]) -> str:
    """Returns the name under which a network, an entry of `models` in comparison.json, is shown in charts."""
    return str(model.get("name") or "unnamed")


def curve(model: dict[str, Any], key: str, part: str | None = None) -> list[Point]:
    """Returns the points (epoch, value) of one curve of a network, an entry of `models` in comparison.json.

    A point comes from each row of the network's ``curve`` in which ``row[key]`` is a finite number; with `part`, from
    ``row[key][part]``.

    >>> curve({"curve": [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": None}]}, "loss")
    [(1.0, 2.5)]
    """
    points = []
    for place, row in enumerate(model.get("curve") or [], 1):
        value = row.get(key)
        if part is not None:
            value = value.get(part) if isinstance(value, dict) else None
        y, epoch = number(value), number(row.get("epoch"))
        if y is not None:
            points.append((float(place) if epoch is None else epoch, y))
    return points


def last_and_best(model: dict[str, Any]) -> tuple[Point, Point] | None:
    """Returns the points (epoch, test accuracy) of a network's last and best epoch, or None if it has no curve.

    `model` is the network's entry in comparison.json. Its ``best_epoch`` names the best epoch; if that is missing, the
    best is the epoch with the highest accuracy.

    >>> rows = [{"epoch": 1, "test_top1": 9.0}, {"epoch": 2, "test_top1": 8.0}]
    >>> last_and_best({"curve": rows})
    ((2.0, 8.0), (1.0, 9.0))
    """
    points = curve(model, "test_top1")
    if not points:
        return None
    stated = [point for point in points if point[0] == number(model.get("best_epoch"))]
    return points[-1], stated[0] if stated else max(points, key=lambda point: point[1])


def second_half(points: Sequence[Point]) -> list[Point]:
    """Returns the points (epoch, value) of a curve in the second half of its epochs.

    >>> second_half([(1, 5.0), (2, 7.0), (3, 8.0), (4, 8.5)])
    [(2, 7.0), (3, 8.0), (4, 8.5)]
    """
    return [point for point in points if point[0] >= points[-1][0] / 2]


def log_suits(values: Sequence[float]) -> bool:
    """Returns whether a logarithmic axis suits the values: all are above 0, and they span more than a factor of 30.

    There must be one value or more.

    >>> log_suits([0.1, 4.0]), log_suits([1.0, 4.0])
    (True, False)
    """
    return min(values) > 0 and max(values) > 30 * min(values)
