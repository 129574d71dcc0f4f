"""``bnn-itrd recipes``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnn_itrd import recipes as recipe_files

if TYPE_CHECKING:
    pass

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """``recipes``: names and purposes."""
    width = max(len(name) for name in recipe_files.names())
    for name in recipe_files.names():
        print(f"{name.ljust(width)}  {recipe_files.describe(name)}")
    return 0
