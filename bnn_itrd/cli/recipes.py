"""``bnn-itrd recipes`` lists the recipes that come with the package."""

from __future__ import annotations

from collections.abc import Sequence

from bnn_itrd import recipes as recipe_files

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """``recipes``: names and purposes."""
    width = max(len(name) for name in recipe_files.names())
    for name in recipe_files.names():
        print(f"{name.ljust(width)}  {recipe_files.describe(name)}")
    return 0
