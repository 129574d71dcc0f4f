"""Numbers with the words that they count."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, word: str, several: str | None = None) -> str:
    """Returns a number and the word for so many; several: the word for any number but 1, by default with an s.

    >>> counted(1, "epoch"), counted(60_000, "test image"), counted(2, "batch", "batches")
    ('1 epoch', '60,000 test images', '2 batches')
    """
    return f"{number:,} {word if number == 1 else several or word + 's'}"
