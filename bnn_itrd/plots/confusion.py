"""Functions that draw a confusion matrix: as an SVG with counts, or, for many classes, as an image without them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from bnn_itrd.plots.svg import TEXT, short, svg, text_width
from bnn_itrd.plots.values import number

__all__ = ["confusion_image", "confusion_table"]


def _shares(matrix: Sequence[Sequence[Any]]) -> list[list[float]]:
    """Returns a confusion matrix with each row divided by its sum: the shares of a true class's predictions."""
    counts = [[number(value) or 0.0 for value in row] for row in matrix]
    return [[value / (sum(row) or 1.0) for value in row] for row in counts]


def confusion_table(matrix: Sequence[Sequence[Any]], names: Sequence[str], *, colour: str, label: str) -> str:
    """Returns an SVG of a confusion matrix (c, c) with its counts: rows are true classes, columns predictions.

    names: names of the classes; colour: CSS colour of the cells, which is deeper for a larger share of the row; label:
    text for screen readers. All cells are wide enough for the longest count.
    """
    shares, count = _shares(matrix), len(matrix)
    shown = [short(name, 11) for name in names]
    longest = max(text_width(name, TEXT) for name in shown)
    digits = max(len(f"{number(value) or 0:g}") for row in matrix for value in row)
    cell = max(25.0, 0.62 * TEXT * digits + 6, 250 / count)
    upright = longest <= cell - 2
    left, top = 24 + longest, 24 + (14 if upright else 0.75 * longest)
    content = f'<g style="--c:{colour}"><text class="name" x="{left}" y="11">predicted</text>'
    middle = top + cell * count / 2
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
            depth = share if i == j else math.sqrt(share)
            place = f'x="{x:.1f}" y="{y:.1f}" width="{cell - 1:.1f}" height="{cell - 1:.1f}"'
            content += f'<rect class="cell" {place} rx="1.5"/>'
            if share == 0:
                continue
            content += f'<rect class="bar" {place} rx="1.5" fill-opacity="{depth:.2f}"/>'
            ink = " on" if depth > 0.55 else ""
            at = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 0.36 * TEXT:.1f}"'
            value = number(matrix[i][j]) or 0
            content += f'<text class="count{ink}" {at} text-anchor="middle">{value:g}</text>'
    # If names are turned, the last one needs space at the right.
    width = left + cell * count + (0 if upright else 0.4 * longest)
    return svg(content + "</g>", label, width=width, height=top + cell * count, fixed=True)


def confusion_image(matrix: Sequence[Sequence[Any]], *, colour: tuple[int, int, int]) -> str:
    """Returns a confusion matrix (c, c) as a PNG with one pixel for each cell, as a data URI for HTML.

    colour: red, green and blue of the cells, 0 to 255. A cell with a smaller share of its row is more transparent.
    """
    from PIL import Image

    shares = _shares(matrix)
    image = Image.new("RGBA", (len(shares[0]), len(shares)))
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            depth = share if i == j else math.sqrt(share)
            image.putpixel((j, i), (*colour, round(255 * depth)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
