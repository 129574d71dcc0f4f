"""Functions that prepare a binary layer's constants for the file.

`fold_into_threshold` turns scale, bias and sign into one integer comparison per channel; `pack_weights` stores the
binary weights with one bit each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from einops import rearrange

__all__ = ["NEVER", "fold_into_threshold", "pack_weights"]

# A number larger than any sum: it is the threshold of a channel whose sign is always -1, and -NEVER is that of a
# channel whose sign is always +1.
NEVER = 2**30


def pack_weights(signs: np.ndarray) -> np.ndarray:
    """Returns binary weights (o, i, kh, kw) packed to one bit each, as uint8 (kh, kw, ceil(i / 8), o).

    Input channel k is bit k % 8, counted from the lowest, of byte k // 8; a bit of 1 stands for +1.
    """
    bits = rearrange(signs > 0, "o i kh kw -> kh kw i o")
    return np.ascontiguousarray(np.packbits(bits, axis=2, bitorder="little"))


def _from_zero(y: np.ndarray) -> np.ndarray:
    """Returns a bool array that is True where y >= 0, because the sign is +1 there."""
    return y >= 0


def fold_into_threshold(
    scale: np.ndarray,
    bias: np.ndarray,
    largest: int,
    positive: Callable[[np.ndarray], np.ndarray] = _from_zero,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (threshold int32 (o,), flip bool (o,)) with which the sign of a layer's output is an integer comparison.

    For the integer sum acc of a channel, ``positive(acc * scale + bias)`` equals ``acc >= threshold``, or
    ``-acc >= threshold`` where `flip` is True, which is where the scale is negative. The caller negates the weights of
    those channels. scale, bias: float32 (o,), finite; largest: the largest possible |acc|; positive: takes outputs
    (o,) and returns where their sign is +1, and must stay True for larger outputs. The result is exact for every
    integer acc, because bisection evaluates the expression itself in float32, with its rounding.
    """
    flip = scale < 0
    size = np.abs(scale).astype(np.float32)
    bias = bias.astype(np.float32)

    def holds(acc: np.ndarray) -> np.ndarray:
        return positive(acc.astype(np.float32) * size + bias)

    low = np.full(len(scale), -largest - 1, np.int64)
    high = np.full(len(scale), largest + 1, np.int64)
    always = holds(np.full(len(scale), -largest))
    never = ~holds(np.full(len(scale), largest))
    while (high - low > 1).any():
        middle = (low + high) // 2
        hit = holds(middle)
        high = np.where(hit, middle, high)
        low = np.where(hit, low, middle)
    threshold = np.where(always, -NEVER, np.where(never, NEVER, high))
    return threshold.astype(np.int32), flip
