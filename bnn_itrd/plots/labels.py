"""Finds places for the labels of a scatter plot, so that they do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bnn_itrd.plots.values import Point

__all__ = ["Box", "nearest", "place_labels"]

Box = tuple[float, float, float, float]

# Directions from a point to the middle of its label, in units of half the label's size: right, left, above, below, ...
_SIDES: tuple[Point, ...] = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
_DIRECTIONS = (*_SIDES, *((x, y / 2) for x, y in _SIDES[4:]), *((x / 2, y) for x, y in _SIDES[4:]))


def place_labels(anchors: Sequence[Point], sizes: Sequence[Point], bounds: Box) -> list[Box]:
    """Returns a box (left, top, right, bottom) for each label, near its point, with as little overlap as possible.

    Labels are placed one after the other: each takes the nearest free place on growing rings around its point, or else
    the place where it covers least. Several orders are tried, and the one with the lowest total cost is used.

    Args:
        anchors: the labelled points (x, y)
        sizes: (width, height) of each label
        bounds: the box in which the labels should be

    All are in pixels.
    """
    places = range(len(anchors))
    orders = (
        list(places),
        list(reversed(places)),
        sorted(places, key=lambda i: anchors[i]),
        sorted(places, key=lambda i: anchors[i], reverse=True),
        sorted(places, key=lambda i: anchors[i][1]),
        sorted(places, key=lambda i: sum(math.dist(anchors[i], other) for other in anchors)),
    )
    tried = [_place_in_order(order, anchors, sizes, bounds) for order in orders]
    return min(tried, key=lambda result: result[1])[0]


def _place_in_order(
    order: Sequence[int], anchors: Sequence[Point], sizes: Sequence[Point], bounds: Box
) -> tuple[list[Box], float]:
    """Places the labels in the given order; returns their boxes and the sum of their costs."""
    dots = [(x - 5, y - 5, x + 5, y + 5) for x, y in anchors]
    taken: dict[int, Box] = {}
    total = 0.0
    for i in order:
        (x, y), (width, height) = anchors[i], sizes[i]
        if not width:  # a label without text covers nothing
            taken[i] = (x, y, x, y)
            continue
        best, least = (x, y, x + width, y + height), math.inf
        for radius in range(8, 260, 6):
            if least <= radius:
                break
            for dx, dy in _DIRECTIONS:
                left = x + dx * (radius + width / 2) - width / 2
                top = y + dy * (radius + height / 2) - height / 2
                box = (left, top, left + width, top + height)
                cost = radius + _cost(box, (x, y), bounds, list(taken.values()), dots)
                if cost < least:
                    best, least = box, cost
        taken[i] = best
        total += least
    return [taken[i] for i in range(len(anchors))], total


def _cost(box: Box, anchor: Point, bounds: Box, taken: Sequence[Box], dots: Sequence[Box]) -> float:
    """Returns how bad a place for a label is: a weighted sum of what it covers and of what its leader line crosses.

    box: the place; anchor: the label's point; taken: the boxes of other labels; dots: the boxes of all points.
    """
    left, top, right, bottom = box
    grown = (left - 2, top - 1, right + 2, bottom + 1)
    cost = 100 * ((right - left) * (bottom - top) - _overlap(box, bounds))
    cost += sum(100 * _overlap(grown, other) for other in taken)
    cost += sum(20 * _overlap(grown, dot) for dot in dots)
    (x, y), (near_x, near_y) = anchor, nearest(box, anchor)
    away = math.dist(anchor, (near_x, near_y))
    # A reader would take a label that is nearer to another point for that point's label.
    for left, top, right, bottom in dots:
        other = ((left + right) / 2, (top + bottom) / 2)
        cost += 25 * (math.dist(other, nearest(box, other)) < min(away - 0.5, 14))
    if away > 13:
        for step in (0.35, 0.5, 0.65, 0.8, 0.95):
            at = (x + step * (near_x - x), y + step * (near_y - y))
            cost += 15 * sum(b[0] - 3 < at[0] < b[2] + 3 and b[1] < at[1] < b[3] for b in (*taken, *dots))
    return cost


def _overlap(a: Box, b: Box) -> float:
    """Returns the area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def nearest(box: Box, point: Point) -> Point:
    """Returns the point of a box (left, top, right, bottom) that is nearest to the given point (x, y).

    >>> nearest((0.0, 0.0, 2.0, 1.0), (5.0, 0.5))
    (2.0, 0.5)
    """
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])
