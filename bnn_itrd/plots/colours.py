"""The colours of the networks in the charts; a network has the same colour in all charts."""

from __future__ import annotations

__all__ = ["COLOURS", "colour_index", "colour_mean", "colour_repeats"]

# A colour for each network: (in the light theme, in the dark theme). The first is the teacher's. Red and green are left
# out, because they mark wrong and right answers.
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
    """Returns the index in COLOURS for the network at index `place` of a comparison.

    If there are more networks than colours, the colours repeat from the second on, since the first is the teacher's.

    >>> [colour_index(place) for place in (0, 7, 8)]
    [0, 7, 1]
    """
    return place if place < len(COLOURS) else 1 + (place - 1) % (len(COLOURS) - 1)


def colour_mean(place: int) -> tuple[int, int, int]:
    """Returns (red, green, blue) for the network at index `place`, the mean of its colours in the light and dark theme.

    It is for images, which look the same in both themes.

    >>> colour_mean(0)
    (137, 149, 165)
    """
    light, dark = (int(colour[1:], 16) for colour in COLOURS[colour_index(place)])
    red, green, blue = (((light >> shift & 255) + (dark >> shift & 255)) // 2 for shift in (16, 8, 0))
    return red, green, blue


def colour_repeats(place: int) -> bool:
    """Returns whether an earlier network has the colour of the one at index `place`, whose lines are then dashed."""
    return place >= len(COLOURS)
