"""`check_ownership` checks that no other user can have changed a virtual environment whose code is about to run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["check_ownership"]


def check_ownership(environment: Path) -> None:
    """Raises ExportError if anybody except the user and root can have changed a virtual environment.

    All files and folders in it, and its parent folder, must belong to the user or root, and only their owner may be
    allowed to write them. Links must belong to the user or root too, but their targets, such as the system's Python,
    are not checked. Nothing is checked if the environment does not exist, or on Windows, where files have no owners.

    >>> check_ownership(Path("/nowhere"))
    """
    if not hasattr(os, "getuid"):
        return
    for path in _inside(environment):
        status = path.lstat()
        if status.st_uid not in (os.getuid(), 0):
            raise ExportError(
                f"{path} belongs to the user with the number {status.st_uid} instead of you or root, so no code in it "
                f"is run: remove {environment}, or set XDG_CACHE_HOME to a folder that belongs to you"
            )
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ExportError(
                f"{path} can be changed by other users (its mode is {stat.S_IMODE(status.st_mode):o}), so no code in "
                f"it is run: remove {environment}, or, if nobody has changed it, run chmod -R go-w {environment.parent}"
            )


def _inside(environment: Path) -> Iterator[Path]:
    """Yields the environment's parent folder, the environment and all paths in it; links are not followed.

    Yields nothing if the environment does not exist.
    """
    if environment.is_dir():
        yield environment.parent
        yield environment
        for folder, folders, files in os.walk(environment):
            yield from (Path(folder, name) for name in (*folders, *files))
