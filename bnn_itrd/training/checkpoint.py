"""Checkpoints: written whole or not at all, sealed, read without running code, refused with a reason."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from bnn_itrd.config.trees import differences
from bnn_itrd.errors import UserError
from bnn_itrd.files import write_file

__all__ = ["FORMAT", "check_undamaged", "load_checkpoint", "matching_state", "refused_content", "save_checkpoint"]


# Raise this when an older version could no longer read what is written.
FORMAT = 1

# The comment of the zip archive that torch.save makes: this, then the sha256, in hex, of all bytes before its digits.
_SEAL = b"bnn-itrd sha256 "
_DIGITS = 64
_COMMENT_LENGTH = 2  # bytes, at the end of an archive that has no comment
_BLOCK = 1 << 20

_REMEDY = "Use another copy of it, or remove it and train again"

# In the message of a pickle that torch refuses: what it would have called.
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves tensors and plain values with their seal. Raises UserError where it cannot, the old file untouched."""
    # Through memory: on a full disk torch's zip writer hides the system's error behind one of its own.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    buffer.seek(-_COMMENT_LENGTH, io.SEEK_END)
    buffer.write((len(_SEAL) + _DIGITS).to_bytes(_COMMENT_LENGTH, "little") + _SEAL)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.write(digest.encode())
    write_file(path, lambda file: file.write(buffer.getbuffer()))


def check_undamaged(path: Path) -> None:
    """Raises UserError where a file that torch.save made has changed since: a flipped bit is another network.

    A checkpoint of `save_checkpoint` is held against its seal, any other archive (an older checkpoint, one that another
    program wrote) against the CRC-32 of each of its parts. What is no archive at all is left to who reads it.
    """
    with path.open("rb") as file:
        seal_at = max(0, file.seek(0, io.SEEK_END) - _DIGITS - len(_SEAL))
        file.seek(seal_at)
        seal = file.read()
        if seal.startswith(_SEAL):
            file.seek(0)
            sha256, left = hashlib.sha256(), seal_at + len(_SEAL)
            while left and (block := file.read(min(left, _BLOCK))):
                sha256.update(block)
                left -= len(block)
            whole = sha256.hexdigest().encode() == seal[len(_SEAL) :]
        else:
            whole = not zipfile.is_zipfile(file) or _parts_fit(path)
    if not whole:
        raise UserError(f"{path} is damaged: its checksum does not fit its contents. {_REMEDY}")


def _parts_fit(path: Path) -> bool:
    """Whether every part of a zip archive has its CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged directory: names that are no text, methods that there are not, places outside
        return False


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU. Raises UserError: missing, cut short, damaged, not ours, newer."""
    if not path.is_file():
        raise UserError(
            f"{path} is a folder, not a checkpoint: remove it" if path.is_dir() else f"no checkpoint {path}"
        )
    check_undamaged(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        # What torch's own reader says of a broken archive helps nobody.
        cut = f" (is it cut short?): its {path.stat().st_size:,} bytes are no archive of torch.save. {_REMEDY}"
        why = refused_content(error)
        raise UserError(f"{path} cannot be read as a checkpoint{f': {why}' if why else cut}") from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise UserError(f"{path} is not a checkpoint of bnn-itrd")
    if state["format"] > FORMAT:
        raise UserError(
            f"{path} has format {state['format']}, newer than this version reads ({FORMAT}): update bnn-itrd"
        )
    return state


def refused_content(error: Exception) -> str:
    """Returns why torch.load refused what a file holds, without its advice on how to run code; else an empty text."""
    if not isinstance(error, pickle.UnpicklingError):
        return ""
    if (named := _GLOBAL.search(str(error))) is not None:
        return f"it holds an object of {named[1]}, and nothing but tensors and plain values is read: no code is run"
    return "it is no file of torch.save, or is damaged"


def matching_state(last: Path, identity: dict[str, Any], *, later: Sequence[str] = ()) -> dict[str, Any]:
    """The checkpoint, if it belongs to this configuration; `later` names what `identity` does not hold yet.

    Raises UserError: unreadable, not a run's checkpoint, or another configuration (a line for each field).
    """
    state = load_checkpoint(last)
    trained = isinstance(state.get("identity"), dict) and isinstance(state.get("objective"), dict)
    if not trained or type(state.get("epoch")) is not int:
        raise UserError(f"{last} is not the checkpoint of a training: choose another --out")
    saved = {key: value for key, value in state["identity"].items() if key not in later}
    if lines := differences(saved, identity):
        raise UserError(
            f"{last.parent} belongs to another configuration; choose another --out, or give the same settings:\n  "
            + "\n  ".join(lines)
        )
    return state
