"""A folder for one process at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bnn_itrd.errors import UserError

__all__ = ["exclusive_folder"]


@contextlib.contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Keeps a second sweep out of the folder for as long as this one runs; the system lets go of a killed one.

    The folder is made where it is not there, and nothing is written into it. Raises UserError where another sweep is at
    work in it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except ImportError:  # Windows: unguarded
        yield
        return
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(f"another sweep is at work in {folder}: wait for its end, or choose another --out") from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)
