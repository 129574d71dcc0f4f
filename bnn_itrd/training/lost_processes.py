"""What becomes of a process of a training that has lost another one."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch.distributed
from lightning.fabric import Fabric

from bnn_itrd.console import say_at_the_end
from bnn_itrd.errors import LostProcess
from bnn_itrd.training.writer import write_waiting

__all__ = ["ending_together"]

# How long the main thread has to notice by itself that a process is lost (gloo says so at once, NCCL in ten minutes).
_PATIENCE = 3.0  # seconds
# What the last finished epoch may take to be written then.
_GRACE = 20.0


@contextlib.contextmanager
def ending_together(fabric: Fabric) -> Iterator[None]:
    """Within it a process ends where another one of the same training has ended: it cannot go on alone.

    Epochs that are finished are written before. Processes of this machine are watched (on Linux), those of others are
    missed by the communication with them. Raises LostProcess; a process that stands in a communication which does not
    notice ends with its message and its status.
    """
    if fabric.world_size == 1:
        yield
        return
    watch = _Watch()
    try:
        watch.begin(_others(fabric))
        yield
        fabric.barrier()
    except RuntimeError as error:
        if not _of_communication(error):
            raise
        # The connection breaks a moment before the system has buried the process.
        watch.found.wait(_PATIENCE if watch.watches else 0)
        raise LostProcess(watch.who) from error
    finally:
        watch.close()


@dataclass(frozen=True)
class _Process:
    rank: int
    world: int
    host: str
    pid: int
    numbering: str  # of the start of a system, and of the container in it, in which that is its pid

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world} (pid {self.pid} on {self.host})"


def _others(fabric: Fabric) -> list[_Process]:
    """The other processes of the training that run on this machine."""
    # Hosts may have one name ("localhost"), and the numbers of their first namespaces are the same.
    numbering = ""
    with contextlib.suppress(OSError):  # not Linux
        numbering = f"{Path('/proc/sys/kernel/random/boot_id').read_text()}{os.stat('/proc/self/ns/pid').st_ino}"
    own = _Process(fabric.global_rank, fabric.world_size, socket.gethostname(), os.getpid(), numbering)
    every: list[_Process] = [own] * fabric.world_size
    torch.distributed.all_gather_object(every, own)
    here = [p for p in every if own.numbering and (p.host, p.numbering) == (own.host, own.numbering)]
    return [p for p in here if p.rank != own.rank]


def _of_communication(error: RuntimeError) -> bool:
    """Whether an error is one of the processes' communication: gloo has no class of its own for its errors."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


class _Watch:
    """A thread that waits for the end of other processes, and ends this one where its main thread does not."""

    def __init__(self) -> None:
        self.who = "another process of this training"
        self.found, self._over = threading.Event(), threading.Event()
        self._handles: dict[int, _Process] = {}
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self, others: list[_Process]) -> None:
        """Watches these processes from here on, where it can."""
        if hasattr(os, "pidfd_open"):  # Linux
            for process in others:
                with contextlib.suppress(OSError):  # it is gone already: the communication says so
                    self._handles[os.pidfd_open(process.pid)] = process
        if self.watches:
            self._thread.start()

    @property
    def watches(self) -> bool:
        """Whether there is a process to be watched."""
        return bool(self._handles)

    def close(self) -> None:
        """Ends the watch."""
        self._over.set()
        os.close(self._writer)
        if self.watches:
            self._thread.join()
        for handle in (self._reader, *self._handles):
            os.close(handle)

    def _run(self) -> None:
        poll = select.poll()
        for handle in (self._reader, *self._handles):
            poll.register(handle)
        gone = [handle for handle, _ in poll.poll() if handle != self._reader]
        if not gone:
            return
        self.who = str(self._handles[gone[0]])
        self.found.set()
        if self._over.wait(_PATIENCE):
            return
        saving = threading.Thread(target=_save, daemon=True)
        saving.start()
        saving.join(_GRACE)
        if not self._over.is_set():
            lost = LostProcess(self.who)
            say_at_the_end(f"bnn-itrd: {lost}")
            os._exit(lost.status)


def _save() -> None:
    with contextlib.suppress(Exception):  # a full disk, say: the last checkpoint stays as it was
        write_waiting()
