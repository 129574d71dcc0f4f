"""Thresholds: scale, bias and sign of an integer sum become one integer comparison per channel.

`pack_weights` stores binary weights as bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from einops import rearrange

__all__ = ["NEVER", "fold_into_threshold", "pack_weights"]

# A sum that no window reaches: the threshold of a channel whose sign is always -1, and negated of one always +1.
NEVER = 2**30


def pack_weights(signs: np.ndarray) -> np.ndarray:
    """Packs signs (o, i, kh, kw) to uint8 (kh, kw, ceil(i / 8), o): channel k is bit k % 8 of byte k // 8, 1 for +1."""
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
    """Folds ``positive(acc * scale + bias)`` into ``s * acc >= threshold``, where s is -1 at `flip` and else +1.

    Returns (threshold int32 (o,), flip bool (o,)). scale, bias: float32 (o,), finite; largest: maximum of |acc|;
    positive: whether the sign of a float32 (o,) is +1, a rule that holds for all larger numbers once it holds for one.
    flip: where the scale is negative. The result is exact for every whole acc, ties included: the expression, computed
    in float32 with its two roundings, never falls as s * acc grows, so bisection on the expression itself finds the
    first sum for which it holds.
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
