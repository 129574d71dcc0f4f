"""A check that only the user and root can have changed an environment, whose code is about to be run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["check_ownership"]


def check_ownership(environment: Path) -> None:
    """Raises ExportError where others than the user and root can have changed an environment.

    All its files and folders, and its parent folder, must belong to the user or root and be writable by their owner
    alone. A link must belong to them too; its target outside the environment, the system's Python, is not checked.
    Where files have no owners (Windows), nothing is checked.

    >>> check_ownership(Path("/nowhere"))
    """
    if not hasattr(os, "getuid"):
        return
    for path in _inside(environment):
        status = path.lstat()
        if status.st_uid not in (os.getuid(), 0):
            raise ExportError(
                f"{path} belongs to user {status.st_uid}, not to you or root: no code is run from there. Remove "
                f"{environment}, or set XDG_CACHE_HOME to a folder of your own"
            )
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ExportError(
                f"{path} can be written by others (its mode is {stat.S_IMODE(status.st_mode):o}): no code is run from "
                f"there. If nobody has changed it, chmod -R go-w {environment.parent}; else remove {environment}"
            )


def _inside(environment: Path) -> Iterator[Path]:
    """Yields the environment's parent folder and all paths in the environment; links are not followed."""
    if environment.is_dir():
        yield environment.parent
        yield environment
        for folder, folders, files in os.walk(environment):
            yield from (Path(folder, name) for name in (*folders, *files))
