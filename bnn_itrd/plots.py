"""Charts of a comparison: SVG fragments for the page (drawn in its colours, light and dark), and one PNG."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

__all__ = [
    "COLOURS",
    "CURVES_PIXELS",
    "Dot",
    "Line",
    "bar_chart",
    "colour_index",
    "confusion_image",
    "confusion_table",
    "curve",
    "last_and_best",
    "line_chart",
    "number",
    "place_labels",
    "plot_curves",
    "scatter_chart",
    "write_atomically",
]

# (light theme, dark theme); the first is the teacher's.
COLOURS = (
    ("#475569", "#cbd5e1"),
    ("#2563eb", "#7db0ff"),
    ("#d9480f", "#ff9f5a"),
    ("#0b8a67", "#3ddbac"),
    ("#8b3fd9", "#c99dff"),
    ("#c2255c", "#ff82b2"),
    ("#0e7490", "#4fd0e8"),
    ("#946200", "#e6be4f"),
)
CURVES_PIXELS = (1680, 720)

_WIDTH, _HEIGHT = 500, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """One curve: its points, a CSS colour, and the point to ring as the best one."""

    name: str
    points: Sequence[Point]
    colour: str
    dashed: bool = False
    best: Point | None = None


@dataclass(frozen=True)
class Dot:
    """One labelled point of a scatter plot; hollow ones stand for exported files."""

    name: str
    x: float
    y: float
    colour: str
    hollow: bool = False
    note: str = ""


def colour_index(place: int) -> int:
    """Of the model at a place: they come round again after the last, but for the teacher's."""
    return place if place < len(COLOURS) else 1 + (place - 1) % (len(COLOURS) - 1)


def number(value: Any) -> float | None:
    """The value as a finite float, or None for anything else (None, text, a bool, NaN)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def curve(model: dict[str, Any], key: str, part: str | None = None) -> list[Point]:
    """(epoch, value) of each epoch that has the key; with a part, of ``row[key][part]``."""
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
    """(epoch, test top-1) of the last and the best epoch on the curve; None without a curve."""
    points = curve(model, "test_top1")
    if not points:
        return None
    stated = [point for point in points if point[0] == number(model.get("best_epoch"))]
    return points[-1], stated[0] if stated else max(points, key=lambda point: point[1])


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends, and is removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _ticks(low: float, high: float, *, count: int = 6, whole: bool = False) -> list[float]:
    """At most `count` multiples of 1, 2, 2.5 or 5 times a power of ten, inside [low, high]."""
    exponent = math.floor(math.log10(max(high - low, 1e-12) / count))
    for scale in (10.0 ** (exponent + k) for k in range(3)):
        for factor in (1.0, 2.0, 2.5, 5.0):
            step = scale * factor
            if whole and step != int(step):
                continue
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first < count:
                return [round(k * step, 12) for k in range(first, last + 1)]
    return [low, high]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten inside [low, high], fewer where that crowds."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d * (1 + 1e-9) <= high * 1.001]
        if len(ticks) <= 7:
            break
    return ticks[:: math.ceil(len(ticks) / 7)] if len(ticks) >= 2 else _ticks(low, high)


def _axis(low: float, high: float, start: float, stop: float, *, log: bool) -> Callable[[float], float]:
    """The map from [low, high] to the pixels [start, stop]."""
    warp: Callable[[float], float] = math.log if log else float
    span = warp(high) - warp(low) or 1.0
    return lambda value: start + (warp(value) - warp(low)) / span * (stop - start)


def _frame(
    x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]], x_label: str, y_label: str
) -> str:
    """Grid, tick labels and axis names; the ticks come as (pixel, text)."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    for y, text in y_ticks:
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 3.8:.1f}" text-anchor="end">{text}</text>')
    for x, text in x_ticks:
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    height = (_TOP + bottom) / 2
    turned = f'transform="translate(11 {height}) rotate(-90)" text-anchor="middle"'
    return "".join(parts) + f'<text class="name" {turned}>{escape(y_label)}</text>'


def _svg(content: str, label: str, width: float = _WIDTH, height: float = _HEIGHT, kind: str = "chart") -> str:
    box = f'viewBox="0 0 {width:g} {height:g}"'
    return f'<svg class="{kind}" {box} role="img" aria-label="{escape(label)}">{content}</svg>'


def line_chart(lines: Sequence[Line], *, label: str, y_label: str, log: bool = False) -> str:
    """SVG of curves over epochs: a dot on the last point of each, a ring on the best.

    A logarithmic axis needs positive values. Raises ValueError without any point.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError("lines must hold at least one point, got none")
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    low, high = min(ys), max(ys)
    if log:
        low, high = low / 1.15, high * 1.15
    else:
        pad = 0.05 * (high - low) or max(0.05 * abs(high), 0.5)
        low, high = low - pad, high + pad
    to_x = _axis(left, right, _LEFT + 6, _WIDTH - _RIGHT - 6, log=False)
    to_y = _axis(low, high, _HEIGHT - _BOTTOM, _TOP, log=log)
    y_ticks = _log_ticks(low, high) if log else _ticks(low, high)
    content = _frame(
        [(to_x(tick), f"{tick:g}") for tick in _ticks(left, right, count=8, whole=True)],
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
    return _svg(content, label)


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


# From a point to the middle of its label, in half sizes: beside it by preference, then above and below.
_SIDES: tuple[Point, ...] = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
_DIRECTIONS = (*_SIDES, *((x, y / 2) for x, y in _SIDES[4:]), *((x / 2, y) for x, y in _SIDES[4:]))


def place_labels(anchors: Sequence[Point], sizes: Sequence[Point], bounds: Box) -> list[Box]:
    """A box (left, top, right, bottom) per label, near its anchor: inside the bounds, clear of the others.

    Greedy: each label takes the nearest free place on widening rings around its anchor, or the least covered
    one where none is free. Several orders are tried, and the one with the least total cost is kept.
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
    dots = [(x - 5, y - 5, x + 5, y + 5) for x, y in anchors]
    taken: dict[int, Box] = {}
    total = 0.0
    for i in order:
        (x, y), (width, height) = anchors[i], sizes[i]
        if not width:  # no text, and nothing in the way of the others
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
    """What the box covers, weighted, and what the line from its anchor runs through."""
    left, top, right, bottom = box
    grown = (left - 2, top - 1, right + 2, bottom + 1)
    cost = 100 * ((right - left) * (bottom - top) - _overlap(box, bounds))
    cost += sum(100 * _overlap(grown, other) for other in taken)
    cost += sum(20 * _overlap(grown, dot) for dot in dots)
    (x, y), (near_x, near_y) = anchor, _nearest(box, anchor)
    away = math.dist(anchor, (near_x, near_y))
    # A label nearer to another point than to its own would be read as that one's.
    for left, top, right, bottom in dots:
        other = ((left + right) / 2, (top + bottom) / 2)
        cost += 25 * (math.dist(other, _nearest(box, other)) < min(away - 0.5, 14))
    if away > 13:
        for step in (0.35, 0.5, 0.65, 0.8, 0.95):
            at = (x + step * (near_x - x), y + step * (near_y - y))
            cost += 15 * sum(b[0] - 3 < at[0] < b[2] + 3 and b[1] < at[1] < b[3] for b in (*taken, *dots))
    return cost


def _nearest(box: Box, point: Point) -> Point:
    """The point of the box nearest to another one."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def _text_width(text: str, size: float) -> float:
    """A generous estimate, as no font is at hand: wide scripts take the full size."""
    return sum(size if ord(letter) > 0x2E80 else 0.6 * size for letter in text)


def scatter_chart(
    dots: Sequence[Dot], *, label: str, x_label: str, y_label: str, x_text: Callable[[float], str]
) -> str:
    """SVG of labelled points; the x axis is logarithmic where the largest x is over five times the smallest.

    Raises ValueError without any point.
    """
    if not dots:
        raise ValueError("dots must hold at least one point, got none")
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
    to_x = _axis(left, right, _LEFT, _WIDTH - _RIGHT, log=log)
    to_y = _axis(low, high, _HEIGHT - _BOTTOM, _TOP, log=False)
    x_ticks = _log_ticks(left, right) if log else [tick for tick in _ticks(left, right) if tick >= 0]
    y_ticks = [tick for tick in _ticks(low, high) if tick <= 100]
    content = _frame(
        [(to_x(tick), x_text(tick)) for tick in x_ticks],
        [(to_y(tick), f"{tick:g}") for tick in y_ticks],
        x_label + (" (log scale)" if log else ""),
        y_label,
    )
    anchors = [(to_x(dot.x), to_y(dot.y)) for dot in dots]
    # Among many points, a ring is told by its colour.
    names = [_short(dot.name, 26) if len(dots) <= 12 or not dot.hollow else "" for dot in dots]
    sizes = [(_text_width(name, 11.5), 13.0) for name in names]
    bounds = (_LEFT + 2.0, _TOP - 8.0, _WIDTH - 2.0, _HEIGHT - _BOTTOM - 2.0)
    boxes = place_labels(anchors, sizes, bounds)
    for dot, name, (x, y), box in zip(dots, names, anchors, boxes, strict=True):
        near_x, near_y = _nearest(box, (x, y))
        leader = ""
        if math.hypot(near_x - x, near_y - y) > 13:
            ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{near_x:.1f}" y2="{near_y:.1f}"'
            leader = f'<line class="leader" {ends}/>'
        # A label beside its point starts (or ends) there, however wide the reader's font makes it.
        anchor, at = "middle", (box[0] + box[2]) / 2
        if box[0] >= x:
            anchor, at = "start", box[0]
        elif box[2] <= x:
            anchor, at = "end", box[2]
        content += f'<g style="--c:{dot.colour}"><title>{escape(dot.name)}: {escape(dot.note)}</title>{leader}'
        content += f'<circle class="{"ring" if dot.hollow else "dot"}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        content += f'<text class="label" x="{at:.1f}" y="{box[3] - 2.5:.1f}" text-anchor="{anchor}">'
        content += f"{escape(name)}</text></g>"
    return _svg(content, label)


def bar_chart(bars: Sequence[tuple[str, float]], *, low: float, high: float, label: str) -> str:
    """SVG of diverging bars, one per (name, change in points): gains to the right, losses to the left.

    The axis spans low <= 0 to high >= 0, so that several charts can share it.
    """
    row, width = 21, 380
    height = row * len(bars) + 8
    span = (high - low) or 1.0
    # Names at the left, and room beside the longest bar of either side for its value.
    left = 12 + max((_text_width(_short(name, 16), 11.5) for name, _ in bars), default=0.0)
    start, stop = left + (44 if low < 0 else 4), width - (44 if high > 0 else 16)
    zero = start - low / span * (stop - start)
    content = f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height}"/>'
    for place, (name, value) in enumerate(bars):
        top = 4 + row * place
        length = abs(value) / span * (stop - start)
        kind, x = ("gain", zero) if value > 0 else ("loss", zero - length)
        end, at = ("start", zero + length + 5) if value >= 0 else ("end", zero - length - 5)
        content += f'<text class="label" x="{left - 6:.1f}" y="{top + 14}" text-anchor="end">'
        content += f"{escape(_short(name, 16))}<title>{escape(name)}</title></text>"
        place_of = f'x="{x:.1f}" y="{top + 3}" width="{length:.1f}" height="{row - 6}"'
        content += f'<rect class="{kind}" {place_of} rx="2"/>'
        text = "0" if value == 0 else f"{'+' if value > 0 else '&minus;'}{abs(value):.1f}"
        content += f'<text class="tick" x="{at:.1f}" y="{top + 14}" text-anchor="{end}">{text}</text>'
    return _svg(content, label, width=width, height=height)


def _shares(matrix: Sequence[Sequence[Any]]) -> list[list[float]]:
    """Each row over its sum: the share of a true class's images that got each prediction."""
    counts = [[number(value) or 0.0 for value in row] for row in matrix]
    return [[value / (sum(row) or 1.0) for value in row] for row in counts]


def confusion_table(matrix: Sequence[Sequence[Any]], names: Sequence[str], *, label: str) -> str:
    """SVG of a confusion matrix with its counts: rows are true classes, columns predictions; (c, c)."""
    shares, count = _shares(matrix), len(matrix)
    shown = [_short(name, 11) for name in names]
    longest = max(_text_width(name, 11) for name in shown)
    upright = longest <= 30
    cell = 400 / count
    left, top = 24 + longest, 24 + (14 if upright else 0.75 * longest)
    digits = max(len(f"{number(value) or 0:g}") for row in matrix for value in row)
    size = min(13.0, 0.42 * cell, 1.5 * cell / digits)
    content = f'<text class="name" x="{left}" y="11">predicted</text>'
    middle = top + 200
    content += f'<text class="name" transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">true</text>'
    for i, name in enumerate(shown):
        y = top + (i + 0.5) * cell + 4
        x = left + (i + 0.5) * cell
        content += f'<text class="tick" x="{left - 6}" y="{y:.1f}" text-anchor="end">{escape(name)}</text>'
        turned = f'transform="translate({x + (0 if upright else 3):.1f} {top - 6:.1f})'
        turned += '" text-anchor="middle"' if upright else ' rotate(-45)"'
        content += f'<text class="tick" {turned}>{escape(name)}</text>'
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            x, y = left + j * cell, top + i * cell
            kind = "right" if i == j else "wrong"
            depth = share if i == j else math.sqrt(share)
            place = f'x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{cell - 1:.1f}"'
            content += f'<rect class="cell" {place} rx="1.5"/>'
            if share == 0:
                continue
            content += f'<rect class="{kind}" {place} rx="1.5" fill-opacity="{depth:.2f}"/>'
            ink = " on" if depth > 0.55 else ""
            at = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 0.36 * size:.1f}" style="font-size:{size:.1f}px"'
            value = number(matrix[i][j]) or 0
            content += f'<text class="count{ink}" {at} text-anchor="middle">{value:g}</text>'
    # Room at the right for a turned last name.
    width = left + 400 + (0 if upright else 0.4 * longest)
    return _svg(content, label, width=max(width, 452), height=top + 400, kind="chart matrix")


def confusion_image(matrix: Sequence[Sequence[Any]]) -> str:
    """Data URI of a PNG, one pixel per cell, see-through where empty so that it suits both themes; (c, c)."""
    from PIL import Image

    shares = _shares(matrix)
    image = Image.new("RGBA", (len(shares[0]), len(shares)))
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            colour, depth = ((59, 130, 246), share) if i == j else ((239, 68, 68), math.sqrt(share))
            image.putpixel((j, i), (*colour, round(255 * depth)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def plot_curves(comparison: dict[str, Any], path: Path) -> Path:
    """PNG of CURVES_PIXELS: test accuracy per epoch, last (dot) and best (star) marked, and training loss.

    A model without a curve, such as a teacher from a file, is a dashed line at its accuracy.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    models = comparison.get("models") or []
    figure = Figure(figsize=(CURVES_PIXELS[0] / 150, CURVES_PIXELS[1] / 150), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    canvas = FigureCanvasAgg(figure)
    accuracy, loss = figure.subplots(1, 2)
    _draw_axes(accuracy, "Test accuracy, %")
    _draw_axes(loss, "Training loss (each with its own terms)")
    handles, texts = [], []
    for place, model in enumerate(models):
        style = {
            "color": COLOURS[colour_index(place)][0],
            "linestyle": "-" if place < len(COLOURS) else "--",
        }
        text, marks = str(model.get("name") or "unnamed"), last_and_best(model)
        if marks is not None:
            last, best = marks
            handles.append(_draw_accuracy(accuracy, model, style))
            texts.append(f"{text}: {last[1]:.2f} last, {best[1]:.2f} best (epoch {best[0]:g})")
        elif (level := number(model.get("top1_last"))) is not None:
            handles.append(accuracy.axhline(level, color=style["color"], linestyle=(0, (2, 2)), linewidth=1.4))
            texts.append(f"{text}: {level:.2f}")
        if points := curve(model, "loss"):
            loss.plot(*zip(*points, strict=True), linewidth=1.6, **style)
    for axes in (accuracy, loss):
        if not axes.lines:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#64748b")
    losses = [value for model in models for _, value in curve(model, "loss")]
    if losses and min(losses) > 0 and max(losses) > 30 * min(losses):
        loss.set_yscale("log")
    _draw_inset(accuracy, models)
    if handles:
        # A leading underscore would hide the entry, and a dollar sign start a formula.
        shown = [f" {text}" if text.startswith("_") else text for text in texts]
        columns = min(2 if len(texts) == 4 or max(map(len, texts)) > 48 else 3, len(texts))
        legend = figure.legend(handles, shown, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    with write_atomically(path) as temporary:
        canvas.print_png(str(temporary))
    return path


def _draw_axes(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color="#1e293b")
    axes.set_xlabel("epoch", color="#475569")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#94a3b8")
    axes.tick_params(colors="#475569", labelsize=9)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.02)


def _draw_accuracy(axes: Any, model: dict[str, Any], style: dict[str, Any], *, late: bool = False) -> Any:
    """The curve of one model (only its second half if late), its last and its best epoch; its line."""
    last, best = last_and_best(model) or ((0.0, 0.0), (0.0, 0.0))
    points = [point for point in curve(model, "test_top1") if not late or point[0] >= last[0] / 2]
    (line,) = axes.plot(*zip(*points, strict=True), linewidth=1.2 if late else 1.6, **style)
    axes.plot(*last, "o", color=style["color"], markersize=5)
    if best in points:
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.7}
        axes.plot(*best, "*", color=style["color"], markersize=11, **edge)
    return line


def _draw_inset(axes: Any, models: Sequence[dict[str, Any]]) -> None:
    """The second half of training on a scale of its own, as curves end close together, if there is room."""
    points = [point for model in models for point in curve(model, "test_top1")]
    if len({epoch for epoch, _ in points}) < 8:
        return
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    if any(x > left + 0.33 * (right - left) and y < low + 0.68 * (high - low) for x, y in points):
        return
    inset = axes.inset_axes((0.4, 0.09, 0.58, 0.5))
    for place, model in enumerate(models):
        if last_and_best(model) is not None:
            dash = "-" if place < len(COLOURS) else "--"
            style = {"color": COLOURS[colour_index(place)][0], "linestyle": dash}
            _draw_accuracy(inset, model, style, late=True)
    inset.set_title("second half of training", loc="left", fontsize=8, color="#475569", pad=3)
    inset.tick_params(labelcolor="#475569", labelsize=7.5, color="#94a3b8")
    inset.spines[:].set_color("#cbd5e1")
    inset.grid(axis="y", color="#e2e8f0", linewidth=0.6)
    inset.xaxis.get_major_locator().set_params(integer=True)
