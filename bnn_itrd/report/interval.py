"""The 95 % confidence interval of an accuracy, as numbers and as HTML."""

from __future__ import annotations

import math

__all__ = ["interval_range", "wilson_interval"]


def wilson_interval(percent: float, n: int) -> tuple[float, float]:
    """Returns Wilson's 95 % confidence interval of an accuracy that was measured on n images, (low, high) in percent.

    Wilson, JASA 1927.

    >>> [round(bound, 1) for bound in wilson_interval(90.0, 1000)]
    [88.0, 91.7]
    """
    z, p = 1.959964, percent / 100
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return max(0.0, scale * (middle - spread)), min(100.0, scale * (middle + spread))


def interval_range(top1: float | None, images: int | None) -> str:
    """Returns the 95 % interval of a top-1 accuracy in percent as HTML, such as "96.1-98.3".

    It is "" if the accuracy or the number of test images is not known.

    >>> interval_range(90.0, 1000)
    '<span class="range">88.0&ndash;91.7</span>'
    """
    if top1 is None or not images or not 0 <= top1 <= 100:
        return ""
    low, high = wilson_interval(top1, images)
    return f'<span class="range">{low:.1f}&ndash;{high:.1f}</span>'
