"""Functions that choose the size to which a user's photos are resized, from the sizes that they have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["SMALL_SIZE", "fitting_size", "usual_square"]

# Images of at most this height and width are small: they may be held in memory, and suit networks for small images.
SMALL_SIZE = 64
_LEAST, _STEP = 16, 8


def usual_square(sizes: Sequence[tuple[int, int]]) -> int | None:
    """Returns the common side of images if nine tenths of them are square, small, and of the same size; else None.

    sizes: (width, height) of each image.

    >>> usual_square([(28, 28)] * 9 + [(30, 40)]), usual_square([(28, 28), (32, 32)])
    (28, None)
    """
    if not sizes:
        return None
    (width, height), count = Counter(sizes).most_common(1)[0]
    return width if width == height <= SMALL_SIZE and count >= 0.9 * len(sizes) else None


def fitting_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Returns (side, shorter side) for photos of different sizes, which become side x side for a small network.

    sizes: (width, height) of each photo. In nine tenths of the photos the shorter side has at least the length of the
    second number. The first is the largest multiple of 8 up to that, but at least 16 and at most 64. Returns None if
    `usual_square` gives a side, because the photos need no other size then.

    >>> fitting_size([(40, 52), (52, 40), (64, 60)]), fitting_size([(4000, 3000)] * 20)
    ((40, 40), (64, 3000))
    """
    if not sizes or usual_square(sizes) is not None:
        return None
    side = sorted(map(min, sizes))[len(sizes) // 10]
    return min(SMALL_SIZE, max(_LEAST, side // _STEP * _STEP)), side
