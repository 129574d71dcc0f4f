"""Checkpoints: written whole or not at all, read without running code, refused with a reason."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from bnn_itrd.errors import UserError

__all__ = ["FORMAT", "file_hash", "load_checkpoint", "save_checkpoint", "write_file"]

# Raise this when an older version could no longer read what is written.
FORMAT = 1


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all: into a temporary one beside it, synced, then renamed over the old one.

    Raises UserError (disk full, no permission) and then leaves the old file as it was.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            kept = "; the file that was there is untouched" if path.exists() else ""
            raise UserError(f"cannot write {path}: {error}{kept}. Free some space or choose another --out") from error
        raise


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves tensors and plain values. Raises UserError where it cannot, the old file untouched."""
    # Through memory: on a full disk torch's zip writer hides the system's error behind one of its own.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_file(path, lambda file: file.write(buffer.getbuffer()))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU. Raises UserError: missing, cut short, not ours, newer."""
    if not path.is_file():
        raise UserError(f"no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a checkpoint (is it cut short?): {first}") from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise UserError(f"{path} is not a checkpoint of bnn-itrd")
    if state["format"] > FORMAT:
        raise UserError(
            f"{path} has format {state['format']}, newer than this version reads ({FORMAT}): update bnn-itrd"
        )
    return state


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
