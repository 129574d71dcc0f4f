"""Functions and sizes that the SVG charts share: axes, ticks, and estimates of the width of a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise

__all__ = [
    "BOTTOM",
    "HEIGHT",
    "LEFT",
    "RIGHT",
    "TEXT",
    "TOP",
    "WIDTH",
    "axis",
    "frame",
    "log_ticks",
    "short",
    "spaced",
    "svg",
    "text_width",
    "ticks",
]

# The size of a chart in pixels. A phone with 400 pixels shows it unscaled, so that text of TEXT pixels stays legible.
WIDTH, HEIGHT = 340, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 42
TEXT = 12.0


def ticks(low: float, high: float, *, count: int = 6, whole: bool = False) -> list[float]:
    """Returns at most `count` evenly spaced round numbers in [low, high], the ticks of an axis.

    The step is 1, 2, 2.5 or 5 times a power of ten; with `whole` it is a whole number.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
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


def log_ticks(low: float, high: float) -> list[float]:
    """Returns at most 7 ticks of a logarithmic axis in [low, high]: 1, 2 and 5 times powers of ten, or fewer of them.

    >>> log_ticks(1, 10)
    [1.0, 2.0, 5.0, 10.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d * (1 + 1e-9) <= high * 1.001]
        if len(found) <= 7:
            break
    return found[:: math.ceil(len(found) / 7)] if len(found) >= 2 else ticks(low, high)


def axis(low: float, high: float, start: float, stop: float, *, log: bool) -> Callable[[float], float]:
    """Returns a function that maps values in [low, high] to pixels in [start, stop], linearly or by their logarithm.

    >>> axis(0.0, 10.0, 100.0, 200.0, log=False)(5.0)
    150.0
    """
    warp: Callable[[float], float] = math.log if log else float
    span = warp(high) - warp(low) or 1.0
    return lambda value: start + (warp(value) - warp(low)) / span * (stop - start)


def frame(
    x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]], x_label: str, y_label: str
) -> str:
    """Returns the SVG of a chart's axes with names, ticks and horizontal grid lines; a tick is (pixel, text)."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    for y, text in y_ticks:
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 7}" y="{y + 3.8:.1f}" text-anchor="end">{text}</text>')
    for x, text in x_ticks:
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    height = (TOP + bottom) / 2
    turned = f'transform="translate(11 {height}) rotate(-90)" text-anchor="middle"'
    return "".join(parts) + f'<text class="name" {turned}>{escape(y_label)}</text>'


def spaced(x_ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Returns all ticks (pixel, text), or every second, third, ... of them, so that their texts do not overlap.

    >>> spaced([(0.0, "0.1"), (15.0, "0.2"), (30.0, "0.3"), (45.0, "0.4")])
    [(0.0, '0.1'), (30.0, '0.3')]
    """
    for step in range(1, len(x_ticks)):
        kept = x_ticks[::step]
        ends = [(x - text_width(text, TEXT) / 2, x + text_width(text, TEXT) / 2) for x, text in kept]
        if all(right + 5 <= left for (_, right), (left, _) in pairwise(ends)):
            return list(kept)
    return list(x_ticks[:1])


def svg(content: str, label: str, width: float = WIDTH, height: float = HEIGHT, *, fixed: bool = False) -> str:
    """Returns the SVG element of a chart with the given content; label: text for screen readers.

    fixed: whether the browser may hardly scale the chart, so that its text keeps its size.
    """
    box = f'viewBox="0 0 {width:g} {height:g}"'
    if fixed:
        box += f' style="min-width:{width:.0f}px;max-width:{1.15 * width:.0f}px"'
    return f'<svg class="chart" {box} role="img" aria-label="{escape(label)}">{content}</svg>'


def short(text: str, limit: int) -> str:
    """Returns the text; if it has more than `limit` letters, it is cut and ends in an ellipsis.

    >>> short("confusion", 6)
    'confu…'
    """
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def text_width(text: str, size: float) -> float:
    """Returns an estimate of a text's width in pixels, rather too large; `size` is the font's height in pixels.

    A Chinese, Japanese or Korean letter counts as wide as it is high.

    >>> text_width("abc", 10.0)
    18.0
    """
    return sum(size if ord(letter) > 0x2E80 else 0.6 * size for letter in text)
