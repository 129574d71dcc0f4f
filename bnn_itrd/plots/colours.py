"""The colours of the models, the same in every chart."""

from __future__ import annotations

__all__ = ["COLOURS", "colour_index", "colour_repeats"]

# (light theme, dark theme); the first is the teacher's.
COLOURS = (
    ("#475569", "#cbd5e1"),
    ("#2563eb", "#7db0ff"),
    ("#d9480f", "#ff9f5a"),
    ("#0b8a67", "#3ddbac"),
    ("#8b3fd9", "#c99dff"),
    ("#c2255c", "#ff82b2"),
    ("#0e7490", "#4fd0e8"),
    ("#946200", "#e6be4f"),
)


def colour_index(place: int) -> int:
    """Of the model at a place: they come round again after the last, but for the teacher's."""
    return place if place < len(COLOURS) else 1 + (place - 1) % (len(COLOURS) - 1)


def colour_repeats(place: int) -> bool:
    """Whether another model has that colour already; this one is told by a dashed line."""
    return place >= len(COLOURS)
