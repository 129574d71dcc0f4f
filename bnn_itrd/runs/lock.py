"""A folder for one process at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bnn_itrd.errors import UserError, remedy
from bnn_itrd.files import remove_half_written

__all__ = ["exclusive_folder", "run_folder"]

# What the launchers of several processes call a process: all but the first of a run work in its folder too.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@contextlib.contextmanager
def exclusive_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keeps other processes out of the folder for as long as this one works in it; the system lets go of a killed one.

    The folder is made where it is not there (and removed again where nothing came into it), no file is written into it,
    and what a killed process left half written is removed. shared: others may share it too, but none may have it to
    itself; then nothing is removed. Of a run of several processes the first one alone takes it. Raises UserError where
    another process is at work in it, or it cannot be made.
    """
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        yield
        return
    there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except ImportError:  # Windows: unguarded
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
            raise UserError(f"{which} is at work in {folder}: wait for its end, or choose another --out") from error
        except OSError:  # a file system without locks
            pass
        if not shared:
            remove_half_written(folder)
        yield
    finally:
        if not there and not refused:  # the other process has just made it
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
        os.close(handle)


def _holder(handle: int) -> int | None:
    """The process that has locked an open folder, as Linux tells it; None where nothing does."""
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
    """Holds a run's folder, or that of the one member which is trained there: two members may be trained at a time.

    Raises UserError as `exclusive_folder` does.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(exclusive_folder(out, shared=only is not None))
        if only is not None:
            held.enter_context(exclusive_folder(out / only))
        yield
