"""Rules that choose the size to which images are brought from the sizes that they have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["SMALL_SIZE", "fitting_size", "usual_square"]

# Images up to this side are small: they are held in memory, and suit networks that begin with a 3x3 convolution.
SMALL_SIZE = 64
_LEAST, _STEP = 16, 8


def usual_square(sizes: Sequence[tuple[int, int]]) -> int | None:
    """Returns the side of nine tenths of the images if these are equal, square and small; else None.

    >>> usual_square([(28, 28)] * 9 + [(30, 40)]), usual_square([(28, 28), (32, 32)])
    (28, None)
    """
    if not sizes:
        return None
    (width, height), count = Counter(sizes).most_common(1)[0]
    return width if width == height <= SMALL_SIZE and count >= 0.9 * len(sizes) else None


def fitting_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Returns the side to which photos are brought for a small network, and the shorter side that nine tenths reach.

    The first is the largest multiple of 8 that is at most the second, from 16 to 64. None if `usual_square` gives a
    side.

    >>> fitting_size([(40, 52), (52, 40), (64, 60)]), fitting_size([(4000, 3000)] * 20)
    ((40, 40), (64, 3000))
    """
    if not sizes or usual_square(sizes) is not None:
        return None
    side = sorted(map(min, sizes))[len(sizes) // 10]
    return min(SMALL_SIZE, max(_LEAST, side // _STEP * _STEP)), side
