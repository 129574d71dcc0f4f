"""Checkpoints are written beside the training: the states of finished epochs wait in memory until it is time."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bnn_itrd.errors import UserError
from bnn_itrd.training.checkpoint import save_checkpoint

__all__ = ["CheckpointWriter", "write_waiting"]

# Those that may hold an epoch which is not on the disk yet.
_OPEN: weakref.WeakSet[CheckpointWriter] = weakref.WeakSet()


def write_waiting() -> None:
    """Writes the ends of epochs that are in memory alone, for a process that is about to end in the midst of a step."""
    for writer in list(_OPEN):
        writer.flush()


class CheckpointWriter:
    """Writes checkpoints into a folder: the first at once, then when `seconds` have passed since the last one.

    What `keep` is given in between waits as a copy on its device, the newest of each file; `flush` writes it. A thread
    writes, one file after the other. A state whose writing failed waits again, unless a newer one does.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.began = False
        self._waiting: dict[str, Any] = {}  # file -> what it is to hold
        self._written = -float("inf")
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._unwritten: dict[str, Any] = {}  # what it is at, which gets less
        # `write_waiting` comes from another thread, while the training stands in a step.
        self._lock = threading.RLock()
        _OPEN.add(self)

    def keep(self, files: Mapping[str, Any]) -> None:
        """Copies what the files are to hold, in the order they are to be written, and writes them where it is time.

        Raises UserError where an earlier one could not be written.
        """
        with self._lock:
            copies = _copy(files)
            # Those that wait already and are not given again come first: last.pt is always written last.
            self._waiting = {name: state for name, state in self._waiting.items() if name not in files} | copies
            if self._writing is not None and self._writing.done():
                self._finish()
            if time.monotonic() - self._written >= self.seconds:
                self._finish()
                self._begin()

    def flush(self) -> None:
        """Writes what waits, and returns when it is on the disk. Raises UserError where that could not be done."""
        with self._lock:
            with contextlib.suppress(UserError):  # what could not be written waits again, and is tried once more
                self._finish()
            self._begin()
            self._finish()

    def close(self) -> None:
        """Does what `flush` does, and ends the thread."""
        try:
            self.flush()
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def _begin(self) -> None:
        if not self._waiting:
            return
        states = _copy(self._waiting, "cpu")
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing = self._thread.submit(self._write, states)
        self._unwritten, self._waiting = states, {}
        self._written, self.began = time.monotonic(), True

    def _write(self, states: dict[str, Any]) -> None:
        for name in list(states):
            save_checkpoint(self.folder / name, states[name])
            del states[name]

    def _finish(self) -> None:
        """Waits for what is being written, and raises what that met."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except BaseException:
            self._waiting = self._unwritten | self._waiting
            raise


def _copy(state: Any, device: str | None = None, seen: dict[Any, torch.Tensor] | None = None) -> Any:
    """A copy of nested plain values and tensors: each tensor on its device, or one that lies elsewhere on `device`.

    What is the same memory in several places (a network's weights, in itself and in the objective) stays one tensor.
    """
    seen = {} if seen is None else seen
    if isinstance(state, torch.Tensor):
        key = (state.device, state.data_ptr(), state.dtype, state.shape, state.stride())
        if key not in seen:
            seen[key] = state.detach().clone() if device is None else state.detach().to(device)
        return seen[key]
    if isinstance(state, Mapping):
        made: Any = copy.copy(state)  # with what a state dict knows beside its values
        for name, value in state.items():
            made[name] = _copy(value, device, seen)
        return made
    if isinstance(state, (list, tuple)):
        return type(state)(_copy(value, device, seen) for value in state)
    return state
