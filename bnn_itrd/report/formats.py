"""Functions that format numbers as text for the report's HTML; a missing number becomes a dash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bnn_itrd.plots import number

__all__ = [
    "DASH",
    "as_bytes",
    "as_duration",
    "as_milliseconds",
    "as_percent",
    "as_scaled",
    "as_signed",
    "as_small",
    "as_times",
    "as_whole",
    "fixed",
    "in_times",
    "or_dash",
]

DASH = '<span class="none">&mdash;</span>'


def fixed(value: float, digits: int) -> str:
    """Returns a number with `digits` digits after the point; a number below 100 is never rounded up to 100.

    >>> fixed(99.999, 2)
    '99.99'
    """
    text = f"{value:.{digits}f}"
    return text if value >= 100 or float(text) < 100 else f"{100 - 10**-digits:.{digits}f}"


def or_dash(value: Any, write: Callable[[float], str]) -> str:
    """Returns the text that `write` makes of a finite number, or a dash if the value is anything else."""
    found = number(value)
    return DASH if found is None else write(found)


def as_percent(value: Any) -> str:
    """Returns a percentage with two digits after the point, or a dash for a missing number.

    >>> as_percent(97.2)
    '97.20'
    """
    return or_dash(value, lambda v: fixed(v, 2))


def as_signed(value: Any) -> str:
    """Returns a number with its sign and two digits after the point, or a dash for a missing number.

    >>> as_signed(1.5), as_signed(-1.5)
    ('+1.50', '&minus;1.50')
    """
    return or_dash(value, lambda v: "0.00" if abs(v) < 0.005 else f"{'+' if v > 0 else '&minus;'}{abs(v):.2f}")


def as_whole(value: Any) -> str:
    """Returns a number without its fraction and with commas, or a dash for a missing number.

    >>> as_whole(269434)
    '269,434'
    """
    return or_dash(value, lambda v: f"{v:,.0f}")


def as_scaled(value: Any, units: Sequence[str] = ("", "k", "M", "G", "T")) -> str:
    """Returns a number with k, M, G or T (or other `units`) for a power of 1,000, or a dash for a missing number.

    >>> as_scaled(1077736)
    '1.08 M'
    """

    def write(v: float) -> str:
        power = 0
        while abs(v) >= 999.5 and power < len(units) - 1:
            v, power = v / 1000, power + 1
        text = f"{v:.0f}" if abs(v) >= 99.95 or v == int(v) else f"{v:.3g}"
        return f"{text} {units[power]}".strip()

    return or_dash(value, write)


def as_bytes(value: Any) -> str:
    """Returns a size in bytes with a unit from B to TB, or a dash for a missing number.

    >>> as_bytes(38491)
    '38.5 kB'
    """
    return as_scaled(value, ("B", "kB", "MB", "GB", "TB"))


def as_times(ratio: float) -> str:
    """Returns a ratio followed by x; it has one digit after the point if it is below 10.

    >>> as_times(28.1), as_times(2.5)
    ('28x', '2.5x')
    """
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x"


def in_times(ratio: float) -> str:
    """Returns a ratio with about two significant digits, for a sentence such as "2.6 times as fast": 22.7 -> 23.

    >>> in_times(0.381)
    '0.38'
    """
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2g}"


def as_milliseconds(value: Any) -> str:
    """Returns milliseconds with three significant digits, from 99.5 on without a fraction; a dash for a missing number.

    >>> as_milliseconds(0.0625), as_milliseconds(1234.5)
    ('0.0625', '1,234')
    """
    return or_dash(value, lambda v: f"{v:,.0f}" if v >= 99.5 else f"{v:.3g}")


def as_small(value: Any) -> str:
    """Returns a number in scientific notation, or a dash for a missing number.

    >>> as_small(2e-06)
    '2.0e-6'
    """
    return or_dash(value, lambda v: "0" if v == 0 else f"{v:.1e}".replace("e-0", "e-").replace("e+0", "e+"))


def as_duration(seconds: float) -> str:
    """Returns a duration, given in seconds, with its unit s, min or h.

    >>> as_duration(150)
    '2.5 min'
    """
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
