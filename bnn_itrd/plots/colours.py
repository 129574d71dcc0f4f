"""The colours of the models, the same in every chart; nothing else on the page has them."""

from __future__ import annotations

__all__ = ["COLOURS", "colour_index", "colour_mean", "colour_repeats"]

# (light theme, dark theme); the first is the teacher's. There is no red and no green, which mean wrong and right.
COLOURS = (
    ("#475569", "#cbd5e1"),
    ("#2563eb", "#7db0ff"),
    ("#c85f00", "#ffae57"),
    ("#8b3fd9", "#c99dff"),
    ("#0e7490", "#4fd0e8"),
    ("#b0219e", "#f08be0"),
    ("#7a4a2b", "#d3a283"),
    ("#6f7d00", "#c4d04a"),
)


def colour_index(place: int) -> int:
    """Returns the index in COLOURS of the model at a place; after the last colour, all but the teacher's repeat."""
    return place if place < len(COLOURS) else 1 + (place - 1) % (len(COLOURS) - 1)


def colour_mean(place: int) -> tuple[int, int, int]:
    """Returns the mean of a model's colours in both themes as red, green and blue, for an image shown in either.

    >>> colour_mean(0)
    (137, 149, 165)
    """
    light, dark = (int(colour[1:], 16) for colour in COLOURS[colour_index(place)])
    red, green, blue = (((light >> shift & 255) + (dark >> shift & 255)) // 2 for shift in (16, 8, 0))
    return red, green, blue


def colour_repeats(place: int) -> bool:
    """Returns whether an earlier model has the same colour; this model's lines are then dashed."""
    return place >= len(COLOURS)
