"""Functions that draw charts as SVG: curves over epochs, scatter plots with labels, and bars to both sides of 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bnn_itrd.plots.labels import nearest, place_labels
from bnn_itrd.plots.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TEXT,
    TOP,
    WIDTH,
    axis,
    frame,
    log_ticks,
    short,
    spaced,
    svg,
    text_width,
    ticks,
)
from bnn_itrd.plots.values import Point

__all__ = ["Dot", "Line", "bar_chart", "line_chart", "scatter_chart"]


@dataclass(frozen=True)
class Line:
    """One curve of a chart: its points (x, y), its CSS colour, and the best of its points, which gets a ring."""

    name: str
    points: Sequence[Point]
    colour: str
    dashed: bool = False
    best: Point | None = None


@dataclass(frozen=True)
class Dot:
    """One point of a scatter plot with its name and CSS colour; `note` is shown when the mouse is over it."""

    name: str
    x: float
    y: float
    colour: str
    note: str = ""


def line_chart(lines: Sequence[Line], *, label: str, y_label: str, log: bool = False) -> str:
    """Returns an SVG of curves over epochs, with a dot on the last point of each and a ring on the best.

    label: text for screen readers; y_label: name of the y axis; log: whether the y axis is logarithmic, for which all
    values must be above 0. Raises ValueError if there is no point.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError("lines have no point: give one point or more")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    low, high = min(ys), max(ys)
    if log:
        low, high = low / 1.15, high * 1.15
    else:
        pad = 0.05 * (high - low) or max(0.05 * abs(high), 0.5)
        low, high = low - pad, high + pad
    to_x = axis(left, right, LEFT + 6, WIDTH - RIGHT - 6, log=False)
    to_y = axis(low, high, HEIGHT - BOTTOM, TOP, log=log)
    y_ticks = log_ticks(low, high) if log else ticks(low, high)
    content = frame(
        spaced([(to_x(tick), f"{tick:g}") for tick in ticks(left, right, count=8, whole=True)]),
        [(to_y(tick), f"{tick:g}") for tick in y_ticks],
        "epoch",
        y_label,
    )
    for line in lines:
        if not line.points:
            continue
        path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in line.points)
        dash = " dashed" if line.dashed else ""
        x, y = line.points[-1]
        content += f'<g style="--c:{line.colour}"><title>{escape(line.name)}: {y:.4g} at epoch {x:g}</title>'
        content += f'<polyline class="curve{dash}" points="{path}"/>'
        content += f'<circle class="dot" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="3.2"/></g>'
        if line.best is not None and line.best in line.points:
            x, y = line.best
            content += f'<g style="--c:{line.colour}"><title>{escape(line.name)}: best, {y:.4g} at epoch {x:g}'
            content += f'</title><circle class="ring" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="5"/></g>'
    return svg(content, label)


def scatter_chart(
    dots: Sequence[Dot], *, label: str, x_label: str, y_label: str, x_text: Callable[[float], str]
) -> str:
    """Returns an SVG of a scatter plot in which each point has its name next to it.

    The x axis is logarithmic if the largest x is more than five times the smallest. label: text for screen readers;
    x_text: the text of a tick on the x axis. Raises ValueError if there is no point.
    """
    if not dots:
        raise ValueError("dots is empty: give one point or more")
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    log = min(xs) > 0 and max(xs) > 5 * min(xs)
    if log:
        grow = (max(xs) / min(xs)) ** 0.16
        left, right = min(xs) / grow, max(xs) * grow
    else:
        pad = 0.14 * (max(xs) - min(xs)) or 0.3 * abs(xs[0]) or 1.0
        left, right = min(xs) - pad, max(xs) + pad
    pad = 0.14 * (max(ys) - min(ys)) or 1.0
    low, high = min(ys) - pad, max(ys) + pad
    to_x = axis(left, right, LEFT, WIDTH - RIGHT, log=log)
    to_y = axis(low, high, HEIGHT - BOTTOM, TOP, log=False)
    x_ticks = log_ticks(left, right) if log else [tick for tick in ticks(left, right) if tick >= 0]
    y_ticks = [tick for tick in ticks(low, high) if tick <= 100]
    content = frame(
        spaced([(to_x(tick), x_text(tick)) for tick in x_ticks]),
        [(to_y(tick), f"{tick:g}") for tick in y_ticks],
        x_label + (" (log scale)" if log else ""),
        y_label,
    )
    anchors = [(to_x(dot.x), to_y(dot.y)) for dot in dots]
    names = [short(dot.name, 26) for dot in dots]
    sizes = [(text_width(name, TEXT), 14.0) for name in names]
    bounds = (LEFT + 2.0, TOP - 8.0, WIDTH - 2.0, HEIGHT - BOTTOM - 2.0)
    boxes = place_labels(anchors, sizes, bounds)
    for dot, name, (x, y), box in zip(dots, names, anchors, boxes, strict=True):
        near_x, near_y = nearest(box, (x, y))
        leader = ""
        if math.hypot(near_x - x, near_y - y) > 13:
            ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{near_x:.1f}" y2="{near_y:.1f}"'
            leader = f'<line class="leader" {ends}/>'
        # The text of a label to the right of its point starts there, and one to the left ends there, because the
        # browser's font may be wider than the estimate.
        anchor, at = "middle", (box[0] + box[2]) / 2
        if box[0] >= x:
            anchor, at = "start", box[0]
        elif box[2] <= x:
            anchor, at = "end", box[2]
        content += f'<g style="--c:{dot.colour}"><title>{escape(dot.name)}: {escape(dot.note)}</title>{leader}'
        content += f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        content += f'<text class="label" x="{at:.1f}" y="{box[3] - 3:.1f}" text-anchor="{anchor}">'
        content += f"{escape(name)}</text></g>"
    return svg(content, label)


def bar_chart(bars: Sequence[tuple[str, float]], *, low: float, high: float, colour: str, label: str) -> str:
    """Returns an SVG of horizontal bars, one for each (name, change in percentage points), to both sides of 0.

    Gains are at the right of 0, losses at the left. `low` (0 or below) and `high` (0 or above) are the ends of the
    axis, so that several charts can have equal axes. colour: CSS colour of the bars; label: text for screen readers.
    """
    row, width = 22, WIDTH
    height = row * len(bars) + 8
    span = (high - low) or 1.0
    # Names are at the left. Next to the longest bar on either side there is space for its value.
    left = 12 + max((text_width(short(name, 16), TEXT) for name, _ in bars), default=0.0)
    start, stop = left + (52 if low < 0 else 4), width - (52 if high > 0 else 16)
    zero = start - low / span * (stop - start)
    content = f'<g style="--c:{colour}">'
    content += f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height}"/>'
    for place, (name, value) in enumerate(bars):
        top = 4 + row * place
        length = abs(value) / span * (stop - start)
        x = zero if value > 0 else zero - length
        end, at = ("start", zero + length + 5) if value >= 0 else ("end", zero - length - 5)
        content += f'<text class="label" x="{left - 6:.1f}" y="{top + 14}" text-anchor="end">'
        content += f"{escape(short(name, 16))}<title>{escape(name)}</title></text>"
        place_of = f'x="{x:.1f}" y="{top + 3}" width="{length:.1f}" height="{row - 6}"'
        content += f'<rect class="bar" {place_of} rx="2"/>'
        text = "0" if value == 0 else f"{'+' if value > 0 else '&minus;'}{abs(value):.1f}"
        content += f'<text class="tick" x="{at:.1f}" y="{top + 14}" text-anchor="{end}">{text}</text>'
    return svg(content + "</g>", label, width=width, height=height)
