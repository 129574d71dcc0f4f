"""Signals that end a command: Ctrl-C, and what SLURM, Kubernetes and a lost shell send before they kill."""

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
# Python sees a signal between two of its own instructions, and one step of a large network may take longer than this.
_PATIENCE = 1.5  # seconds
# What the way out may take: it writes the last finished epoch. SLURM and Kubernetes kill after 30 s.
_GRACE = 20.0

# Those of the signals that `stoppable` has taken over, as they were.
_handlers: dict[int, Any] = {}


def _leave_to_the_parent() -> None:
    """Gives a forked worker its own handlers back: what is sent to it alone must not end its parent."""
    if _handlers:
        signal.set_wakeup_fd(-1)
        for number, handler in _handlers.items():
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


class Stopped(KeyboardInterrupt):
    """Raised where a signal ends the command; whatever makes way for Ctrl-C makes way for the others too.

    >>> Stopped(signal.SIGTERM).status
    143
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number

    def message(self) -> str:
        """Returns what the user is told."""
        by = "" if self.status == 128 + signal.SIGINT else f" by {self}"
        return f"\nbnn-itrd: stopped{by}; the same command continues from the last finished epoch"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within it a signal raises `Stopped`; where nothing notices that for two seconds, the process ends all the same.

    Nothing is lost then either: finished epochs that are not on the disk yet are written first. A signal that the
    process was told to ignore (nohup) stays ignored, and outside the main thread, where Python allows no handlers,
    nothing is changed.
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
        for own in before:  # one is enough: what follows must not cut the way out short
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
    """Ends the process where the main thread has not done so in time; it returns where the pipe is closed."""
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
    """Writes the finished epochs that a training holds in memory, where there is one."""
    writer = sys.modules.get("bnn_itrd.training.writer")
    if writer is not None:
        with contextlib.suppress(Exception):  # a full disk, say: the last checkpoint stays as it was
            writer.write_waiting()
