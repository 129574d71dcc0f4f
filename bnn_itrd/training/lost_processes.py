"""Ends a process of a distributed training when another process of it has ended, because none can go on alone."""

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

# The main thread gets this time to notice by itself that a process has ended. Gloo reports it at once, NCCL after ten
# minutes.
_PATIENCE = 3.0  # seconds
# After that, the checkpoint of the last finished epoch must be written within this time.
_GRACE = 20.0  # seconds


@contextlib.contextmanager
def ending_together(fabric: Fabric) -> Iterator[None]:
    """Ends this process if, within the ``with`` block, another process of the distributed training has ended.

    The checkpoint of the last finished epoch is written first. On Linux the other processes of this machine are
    watched. The end of another machine's process is noticed when the communication with it fails.
    Raises LostProcess in the block. If the block waits in a communication that never fails, the process is ended
    instead, with that error's message and exit status.
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
        # The connection breaks a moment before the system reports the end of the process.
        watch.found.wait(_PATIENCE if watch.watches else 0)
        raise LostProcess(watch.who) from error
    finally:
        watch.close()


@dataclass(frozen=True)
class _Process:
    """A process of the training: its rank, the number of processes, its host and its process id."""

    rank: int
    world: int
    host: str
    pid: int
    numbering: str  # identifies the system's start and the container (pid namespace) to which the pid belongs

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world} (pid {self.pid} on {self.host})"


def _others(fabric: Fabric) -> list[_Process]:
    """Returns the other processes of the training that run on this machine, or none if it does not run Linux."""
    # The host's name is not enough: several machines may be called "localhost", and their first containers have the
    # same namespace number.
    numbering = ""
    with contextlib.suppress(OSError):  # not Linux
        numbering = f"{Path('/proc/sys/kernel/random/boot_id').read_text()}{os.stat('/proc/self/ns/pid').st_ino}"
    own = _Process(fabric.global_rank, fabric.world_size, socket.gethostname(), os.getpid(), numbering)
    every: list[_Process] = [own] * fabric.world_size
    torch.distributed.all_gather_object(every, own)
    here = [p for p in every if own.numbering and (p.host, p.numbering) == (own.host, own.numbering)]
    return [p for p in here if p.rank != own.rank]


def _of_communication(error: RuntimeError) -> bool:
    """Returns whether an error comes from communication between processes; gloo's are recognised by their text."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


class _Watch:
    """A thread that waits until one of other processes ends, and then ends this process if its main thread does not."""

    def __init__(self) -> None:
        self.who = "another process of this training"
        self.found, self._over = threading.Event(), threading.Event()
        self._handles: dict[int, _Process] = {}
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self, others: list[_Process]) -> None:
        """Begins to watch these processes, if the system is Linux; otherwise nothing is watched."""
        if hasattr(os, "pidfd_open"):  # Linux
            for process in others:
                with contextlib.suppress(OSError):  # it has already ended, so that the communication with it fails
                    self._handles[os.pidfd_open(process.pid)] = process
        if self.watches:
            self._thread.start()

    @property
    def watches(self) -> bool:
        """Whether any process is watched."""
        return bool(self._handles)

    def close(self) -> None:
        """Stops watching, and ends the thread."""
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
    with contextlib.suppress(Exception):  # for example a full disk; the last checkpoint is then unchanged
        write_waiting()
