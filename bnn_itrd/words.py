"""A function that writes a number with its noun in the singular or plural, for messages and printed lines."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, word: str, several: str | None = None) -> str:
    """Returns a number followed by its noun, in the plural unless the number is 1.

    several: the plural; None: the word with an s.

    >>> counted(1, "epoch"), counted(60_000, "test image"), counted(2, "batch", "batches")
    ('1 epoch', '60,000 test images', '2 batches')
    """
    return f"{number:,} {word if number == 1 else several or word + 's'}"
