"""Handlers of the signals that end a command: Ctrl-C, and those of SLURM, Kubernetes and a closed terminal."""

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
# The main thread has this time to handle a signal: Python does so between two of its instructions, and one step of a
# large network may take longer.
_PATIENCE = 1.5  # seconds
# Ending the command, which writes the last finished epoch, may take this time. SLURM and Kubernetes kill after 30 s.
_GRACE = 20.0  # seconds

# The former handlers of the signals that `stoppable` handles.
_handlers: dict[int, Any] = {}


def _leave_to_the_parent() -> None:
    """Restores the former handlers in a forked worker, so that a signal to it does not end its parent."""
    if _handlers:
        signal.set_wakeup_fd(-1)
        for number, handler in _handlers.items():
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


class Stopped(KeyboardInterrupt):
    """The exception of a signal that ends the command; it is handled like Ctrl-C, whose exception it extends.

    >>> Stopped(signal.SIGTERM).status
    143
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number

    def message(self) -> str:
        """Returns the message for the user."""
        by = "" if self.status == 128 + signal.SIGINT else f" by {self}"
        return f"\nbnn-itrd: stopped{by}; the same command continues from the last finished epoch"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Makes signals raise `Stopped` inside a ``with`` block, and ends the process if that has no effect.

    If the main thread does not react within two seconds, finished epochs are written to disk and the process ends. A
    signal that is ignored (nohup) stays ignored. Outside the main thread, where Python allows no handlers, nothing is
    changed.
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
        for own in before:  # further signals must not interrupt the ending
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
    """Ends the process if the main thread does not do so in time after a signal; returns when the pipe is closed."""
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
    """Writes the finished epochs that a training, if there is one, has in memory."""
    writer = sys.modules.get("bnn_itrd.training.writer")
    if writer is not None:
        with contextlib.suppress(Exception):  # for example a full disk; the last checkpoint is then unchanged
            writer.write_waiting()
