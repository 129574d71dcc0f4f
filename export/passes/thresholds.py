"""Thresholds: scale, bias and sign of an integer sum as one integer comparison per channel; weights as bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from einops import rearrange

__all__ = ["NEVER", "fold_into_threshold", "pack_weights"]

# A sum no window reaches: a channel that gives one sign always has it as its threshold, or minus it.
NEVER = 2**30


def pack_weights(signs: np.ndarray) -> np.ndarray:
    """Signs (o, i, kh, kw) as bits, uint8 (kh, kw, ceil(i / 8), o): channel k is bit k % 8 of byte k / 8, 1 is +1."""
    bits = rearrange(signs > 0, "o i kh kw -> kh kw i o")
    return np.ascontiguousarray(np.packbits(bits, axis=2, bitorder="little"))


def _from_zero(y: np.ndarray) -> np.ndarray:
    return y >= 0


def fold_into_threshold(
    scale: np.ndarray,
    bias: np.ndarray,
    largest: int,
    positive: Callable[[np.ndarray], np.ndarray] = _from_zero,
) -> tuple[np.ndarray, np.ndarray]:
    """(threshold int32 (o,), flip bool (o,)): ``positive(acc scale + bias)`` as ``s acc >= threshold``, s = -1 at flip.

    scale, bias: float32 (o,), finite; largest: of |acc|; positive: the sign of a float32 (o,), once +1 then +1 for all
    that is larger. Exact, ties included, in float32 arithmetic as it is done (one rounding for the product, one for the
    sum): the expression never falls while s acc grows, so the place where it first holds is found by bisection on the
    expression itself. `flip` is where the scale is negative.
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
