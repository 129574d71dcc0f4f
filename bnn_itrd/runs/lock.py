"""Locks that let only one process at a time work in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bnn_itrd.errors import UserError, remedy
from bnn_itrd.files import remove_half_written

__all__ = ["exclusive_folder", "run_folder"]

# Variables with a process's rank, set by launchers: only the process of rank 0 takes the lock.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@contextlib.contextmanager
def exclusive_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Locks a folder for this process, inside a ``with`` block; the system releases the lock of a killed process.

    The folder is made if it does not exist, and removed again if it stays empty; the lock needs no file in it.
    Temporary files of a killed process are removed. shared: other processes may take a shared lock too, but not an
    exclusive one; nothing is removed then. Of a run with several processes only the first takes the lock. Raises
    UserError if another process has the lock, or the folder cannot be made.
    """
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        yield
        return
    there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except ImportError:  # Windows has no fcntl: there is no lock
        yield
        return
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}. {remedy(error, 'Choose another --out')}") from error
    refused = False
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            refused = True
            pid = _holder(handle)
            which = "another process" if pid is None else f"another process (pid {pid})"
            raise UserError(f"{which} is at work in {folder}: wait until it ends, or choose another --out") from error
        except OSError:  # the file system has no locks
            pass
        if not shared:
            remove_half_written(folder)
        yield
    finally:
        if not there and not refused:  # if refused, the other process has just made the folder
            with contextlib.suppress(OSError):  # the folder is not empty
                folder.rmdir()
        os.close(handle)


def _holder(handle: int) -> int | None:
    """Returns the id of the process that has locked an open folder, from Linux's /proc/locks; None if not known."""
    status = os.fstat(handle)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and words[5] == place and int(words[4]) > 0:
                return int(words[4])
    return None


@contextlib.contextmanager
def run_folder(out: Path, only: str | None = None) -> Iterator[None]:
    """Locks a run's folder, inside a ``with`` block; only: lock one network's folder, so others can be trained too.

    Raises UserError as `exclusive_folder` does.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(exclusive_folder(out, shared=only is not None))
        if only is not None:
            held.enter_context(exclusive_folder(out / only))
        yield
