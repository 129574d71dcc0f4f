"""A writer of checkpoints in a thread; states of finished epochs stay in memory until it is time to write one."""

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

# The writers that may have an epoch in memory which is not on disk yet.
_OPEN: weakref.WeakSet[CheckpointWriter] = weakref.WeakSet()


def write_waiting() -> None:
    """Writes the states that are only in memory, for a process that is about to end inside a step."""
    for writer in list(_OPEN):
        writer.flush()


class CheckpointWriter:
    """Writes checkpoints into a folder: the first at once, then one when `seconds` have passed since the last.

    States given to `keep` in between stay as copies on their device, the newest for each file; `flush` writes them. A
    thread writes one file after the other. A state that could not be written is tried again, unless a newer one came.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.began = False
        self._waiting: dict[str, Any] = {}  # file name -> state to be written
        self._written = -float("inf")
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._unwritten: dict[str, Any] = {}  # the states that the thread has not written yet
        # `write_waiting` is called by another thread, while the training is inside a step.
        self._lock = threading.RLock()
        _OPEN.add(self)

    def keep(self, files: Mapping[str, Any]) -> None:
        """Copies the states of files, name -> state in the order of writing, and writes them if it is time.

        Raises UserError if an earlier state could not be written.
        """
        with self._lock:
            copies = _copy(files)
            # States of other files that wait already come first, so that last.pt is always written last.
            self._waiting = {name: state for name, state in self._waiting.items() if name not in files} | copies
            if self._writing is not None and self._writing.done():
                self._finish()
            if time.monotonic() - self._written >= self.seconds:
                self._finish()
                self._begin()

    def flush(self) -> None:
        """Writes the waiting states, and returns when they are on disk. Raises UserError if that fails."""
        with self._lock:
            with contextlib.suppress(UserError):  # a state that could not be written is tried once more below
                self._finish()
            self._begin()
            self._finish()

    def close(self) -> None:
        """Writes the waiting states, as `flush` does, and ends the thread."""
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
        """Waits until the thread has written its states, and raises its error if it had one."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except BaseException:
            self._waiting = self._unwritten | self._waiting
            raise


def _copy(state: Any, device: str | None = None, seen: dict[Any, torch.Tensor] | None = None) -> Any:
    """Returns a copy of nested plain values and tensors, on each tensor's own device or all on `device`.

    Tensors that share memory (a network's weights, in its own state and in the objective's) are copied once.
    """
    seen = {} if seen is None else seen
    if isinstance(state, torch.Tensor):
        key = (state.device, state.data_ptr(), state.dtype, state.shape, state.stride())
        if key not in seen:
            seen[key] = state.detach().clone() if device is None else state.detach().to(device)
        return seen[key]
    if isinstance(state, Mapping):
        made: Any = copy.copy(state)  # keeps the attributes of a state dict (_metadata)
        for name, value in state.items():
            made[name] = _copy(value, device, seen)
        return made
    if isinstance(state, (list, tuple)):
        return type(state)(_copy(value, device, seen) for value in state)
    return state
