"""Writes and reads checkpoints, which have a checksum and are written completely or not at all.

No code in a checkpoint is run when it is read.
"""

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


# The version of the file format. Raise it when older versions of the package cannot read what is written.
FORMAT = 1

# torch.save makes a zip archive, which may end in a comment. A checkpoint's comment is this text, followed by the
# SHA-256, in hex, of all bytes before its digits.
_SEAL = b"bnn-itrd sha256 "
_DIGITS = 64
_COMMENT_LENGTH = 2  # number of bytes of the comment's length, the last field of an archive without a comment
_BLOCK = 1 << 20

_REMEDY = "Use another copy of it, or remove it and train again"

# torch's message about a pickle that it refuses contains the name of what the pickle would have called.
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Saves a dict of tensors and plain values as a checkpoint, with a checksum.

    Raises UserError if the file cannot be written; an older file at `path` then stays as it was.
    """
    # The archive is made in memory first, because torch's zip writer hides the system's error if the disk is full.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    buffer.seek(-_COMMENT_LENGTH, io.SEEK_END)
    buffer.write((len(_SEAL) + _DIGITS).to_bytes(_COMMENT_LENGTH, "little") + _SEAL)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.write(digest.encode())
    write_file(path, lambda file: file.write(buffer.getbuffer()))


def check_undamaged(path: Path) -> None:
    """Raises UserError if a file of torch.save was damaged after it was written, even by a single bit.

    A checkpoint of `save_checkpoint` is compared with its SHA-256. Another archive, such as an older checkpoint or
    another program's, is compared with the CRC-32 of each of its files. Anything else passes here and cannot be read
    later.
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
    """Returns whether every file inside a zip archive has the CRC-32 that the archive states."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # if the archive's list of files is damaged, zipfile raises errors of many types
        return False


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the dict that `save_checkpoint` wrote, with its tensors on the CPU.

    Raises UserError if the file is missing, cut short, damaged, another program's, or a newer version's.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is a folder, not a checkpoint: remove it"
            if path.is_dir()
            else f"there is no checkpoint {path}: give the path of one"
        )
    check_undamaged(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch raise errors of many types
        # torch's own message about a broken archive would not help the user.
        cut = f" (is it cut short?): its {path.stat().st_size:,} bytes are no archive of torch.save. {_REMEDY}"
        why = refused_content(error)
        raise UserError(f"{path} cannot be read as a checkpoint{f': {why}' if why else cut}") from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise UserError(f"{path} is not a checkpoint of bnn-itrd: give a last.pt or best.pt of a run")
    if state["format"] > FORMAT:
        raise UserError(
            f"{path} has format {state['format']}, newer than this version reads ({FORMAT}): update bnn-itrd"
        )
    return state


def refused_content(error: Exception) -> str:
    """Returns a text that says why torch.load refused a file's content; "" for an error of another kind.

    torch's own message advises to allow the file to run code, which is left out.
    """
    if not isinstance(error, pickle.UnpicklingError):
        return ""
    if (named := _GLOBAL.search(str(error))) is not None:
        return f"it contains an object of {named[1]}, but only tensors and plain values are read: no code is run"
    return "it is not a file of torch.save, or it is damaged"


def matching_state(last: Path, identity: dict[str, Any], *, later: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the content of a training's checkpoint if the training had the configuration `identity`.

    The keys in `later` are not compared, because their values are known only after the training has begun.
    Raises UserError if the file cannot be read or is not a training's checkpoint, or if its configuration is another;
    the message then has a line for each field that differs.
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
