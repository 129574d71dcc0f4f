"""`CheckpointWriter`, which writes checkpoints in a thread, and keeps the newest in memory between two writes."""

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

# All writers; their newest checkpoint may be only in memory.
_OPEN: weakref.WeakSet[CheckpointWriter] = weakref.WeakSet()


def write_waiting() -> None:
    """Writes all checkpoints that are only in memory; called when the process has to end in the middle of a step."""
    for writer in list(_OPEN):
        writer.flush()


class CheckpointWriter:
    """Writes checkpoints into a folder, in a thread: the first at once, the others at least `seconds` seconds apart.

    `keep` takes a checkpoint. If it comes less than `seconds` after the last write, it stays in memory, as a copy on
    its device, until a later `keep` or `flush` writes it, or a newer one replaces it. A checkpoint that could not be
    written is tried again, unless a newer one has come.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.began = False
        self._waiting: dict[str, Any] = {}  # file name -> content that is only in memory
        self._written = -float("inf")
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._unwritten: dict[str, Any] = {}  # file name -> content that the thread has not written yet
        # Another thread may call `write_waiting` while the training is in a step.
        self._lock = threading.RLock()
        _OPEN.add(self)

    def keep(self, files: Mapping[str, Any]) -> None:
        """Takes copies of checkpoints, file name -> content, and writes them in this order if it is time.

        Raises UserError if an earlier checkpoint could not be written.
        """
        with self._lock:
            copies = _copy(files)
            # Other files that already wait come first, so that last.pt is always written last.
            self._waiting = {name: state for name, state in self._waiting.items() if name not in files} | copies
            if self._writing is not None and self._writing.done():
                self._finish()
            if time.monotonic() - self._written >= self.seconds:
                self._finish()
                self._begin()

    def flush(self) -> None:
        """Writes the checkpoints that are only in memory, and waits until they are on disk.

        Raises UserError if that fails.
        """
        with self._lock:
            with contextlib.suppress(UserError):  # a checkpoint that could not be written is tried again below
                self._finish()
            self._begin()
            self._finish()

    def close(self) -> None:
        """Writes the checkpoints that are only in memory, as `flush` does, and ends the thread."""
        try:
            self.flush()
        finally:
            if self._thread is not None:
                self._thread.shutdown()

    def _begin(self) -> None:
        """Gives the waiting checkpoints to the thread, which writes them."""
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
        """Waits until the thread has written its checkpoints; raises the thread's error if it had one."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except BaseException:
            self._waiting = self._unwritten | self._waiting
            raise


def _copy(state: Any, device: str | None = None, seen: dict[Any, torch.Tensor] | None = None) -> Any:
    """Returns a copy of nested dicts, lists, plain values and tensors; tensors stay on their devices or go to `device`.

    Tensors that share memory are copied once, such as a network's weights, which are also in the objective's state.
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
