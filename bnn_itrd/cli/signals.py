"""Handlers for signals that end a command: Ctrl-C, and those that SLURM, Kubernetes or a closed terminal send."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any

from bnn_itrd.console import say_at_the_end

__all__ = ["Stopped", "stoppable"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
# How long the main thread may take to notice a signal. Python calls a handler only between two of its instructions,
# and a step of a large network, which is one call of PyTorch's code, may take longer.
_PATIENCE = 1.5  # seconds
# How long the command may then take to write the last finished epoch and end. SLURM and Kubernetes kill after 30 s.
_GRACE = 20.0  # seconds

# Number of a signal -> its handler before `stoppable` replaced it.
_handlers: dict[int, Any] = {}


def _leave_to_the_parent() -> None:
    """Restores the former signal handlers in a forked worker process.

    Python calls it after a fork. Without it, a signal to a worker would be written into the pipe that it shares with
    its parent, and end the parent.
    """
    if _handlers:
        signal.set_wakeup_fd(-1)
        for number, handler in _handlers.items():
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


class Stopped(KeyboardInterrupt):
    """The exception that a signal raises to end the command, as Ctrl-C raises KeyboardInterrupt.

    number: the signal. `status` is the exit status of the command, 128 + number.

    >>> Stopped(signal.SIGTERM).status
    143
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number

    def message(self) -> str:
        """Returns the line that tells the user which signal ended the command, and how to continue."""
        by = "" if self.status == 128 + signal.SIGINT else f" by {self}"
        return f"\nbnn-itrd: stopped{by}; the same command continues from the last finished epoch"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Returns a context manager in which signals such as SIGTERM raise `Stopped`, so that a command saves its work.

    If the main thread does not react within two seconds, another thread writes the finished epochs to disk and ends the
    process. A signal that is ignored (as under nohup) stays ignored. Called outside the main thread, it does nothing,
    because Python allows signal handlers only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    free = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) in free}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    noticed, over = threading.Event(), threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        for own in before:  # another signal must not interrupt the writing of the last epoch
            signal.signal(own, signal.SIG_IGN)
        noticed.set()
        raise Stopped(number)

    former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, before.keys(), noticed, over), daemon=True)
    watch.start()
    for number in before:
        signal.signal(number, stop)
    _handlers.update(before)
    try:
        yield
    finally:
        over.set()
        _handlers.clear()
        signal.set_wakeup_fd(former)
        os.close(writer)
        watch.join()
        os.close(reader)
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(reader: int, numbers: Collection[int], noticed: threading.Event, over: threading.Event) -> None:
    """Waits for signals in a thread, and ends the process if the main thread does not do so in time.

    reader: the end of a pipe to which Python writes the number of each signal; the function returns when the pipe is
    closed. numbers: the signals that count. noticed: is set when the main thread has raised `Stopped`. over: is set
    when the block of `stoppable` is left.
    """
    while data := os.read(reader, 1):
        if data[0] not in numbers:
            continue
        if not noticed.wait(_PATIENCE):
            saving = threading.Thread(target=_save, daemon=True)
            saving.start()
            saving.join(_GRACE)
        if noticed.is_set() and over.wait(_GRACE):
            continue
        stopped = Stopped(data[0])
        say_at_the_end(stopped.message())
        os._exit(stopped.status)


def _save() -> None:
    """Writes the checkpoint of the last finished epoch, if a training has one in memory that is not yet on disk."""
    writer = sys.modules.get("bnn_itrd.training.writer")
    if writer is not None:
        with contextlib.suppress(Exception):  # for example a full disk; the last checkpoint is then unchanged
            writer.write_waiting()
