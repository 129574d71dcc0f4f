"""Functions that read the numbers of a comparison for charts; every number may be missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["Point", "curve", "last_and_best", "log_suits", "model_name", "number", "second_half"]

Point = tuple[float, float]


def number(value: Any) -> float | None:
    """Returns the value as a finite float, or None for anything else (None, text, a bool, NaN)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def model_name(model: dict[str, Any]) -> str:
    """Returns the name of a model in charts."""
    return str(model.get("name") or "unnamed")


def curve(model: dict[str, Any], key: str, part: str | None = None) -> list[Point]:
    """Returns (epoch, value) for each epoch that has the key; with a part, the values of ``row[key][part]``."""
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
    """Returns (epoch, test top-1) of the last and of the best epoch; None without a curve."""
    points = curve(model, "test_top1")
    if not points:
        return None
    stated = [point for point in points if point[0] == number(model.get("best_epoch"))]
    return points[-1], stated[0] if stated else max(points, key=lambda point: point[1])


def second_half(points: Sequence[Point]) -> list[Point]:
    """Returns the points of a curve from half of its last epoch on."""
    return [point for point in points if point[0] >= points[-1][0] / 2]


def log_suits(values: Sequence[float]) -> bool:
    """Returns whether a logarithmic axis shows the values better; there must be at least one value."""
    return min(values) > 0 and max(values) > 30 * min(values)
