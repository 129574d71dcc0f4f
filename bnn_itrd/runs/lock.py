"""Locks that make sure that only one process at a time works in a run's folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bnn_itrd.errors import UserError, remedy
from bnn_itrd.files import remove_half_written

__all__ = ["exclusive_folder", "run_folder"]

# Environment variables in which launchers give each process its rank; only the process of rank 0 takes the lock.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@contextlib.contextmanager
def exclusive_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Locks a folder for this process as long as a ``with`` block runs; if the process is killed, the lock ends too.

    The folder is made if it does not exist, and removed again if it is empty at the end; no lock file is written.
    Temporary files of a killed process are removed. shared: True: other processes can take a shared lock at the same
    time, but no exclusive one, and no temporary files are removed. Where there are no locks (Windows, some network
    disks) nothing is locked. In a training with several processes only the first takes the lock.
    Raises UserError if another process has the lock, or the folder cannot be made.
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
    """Returns the id of the process that has locked an open folder, read from Linux's /proc/locks; None if unknown."""
    status = os.fstat(handle)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            # A line looks like this: 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and words[5] == place and int(words[4]) > 0:
                return int(words[4])
    return None


@contextlib.contextmanager
def run_folder(out: Path, only: str | None = None) -> Iterator[None]:
    """Locks a run's folder as long as a ``with`` block runs.

    only: the name of the one network that is trained: its folder is locked, and the run's folder only with a shared
    lock, so that other processes can train the run's other networks. Raises UserError as `exclusive_folder` does.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(exclusive_folder(out, shared=only is not None))
        if only is not None:
            held.enter_context(exclusive_folder(out / only))
        yield
