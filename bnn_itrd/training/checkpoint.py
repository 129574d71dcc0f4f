"""Checkpoints: written whole or not at all, read without running code, refused with a reason."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from bnn_itrd.config.trees import differences
from bnn_itrd.errors import UserError
from bnn_itrd.files import write_file

__all__ = ["FORMAT", "load_checkpoint", "matching_state", "save_checkpoint"]


# Raise this when an older version could no longer read what is written.
FORMAT = 1


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


def matching_state(last: Path, identity: dict[str, Any], *, later: Sequence[str] = ()) -> dict[str, Any]:
    """The checkpoint, if it belongs to this configuration; `later` names what `identity` does not hold yet.

    Raises UserError: unreadable, not a run's checkpoint, or another configuration (a line for each field).
    """
    state = load_checkpoint(last)
    if not {"identity", "objective", "epoch"} <= state.keys():
        raise UserError(f"{last} is not the checkpoint of a training: choose another --out")
    saved = {key: value for key, value in state["identity"].items() if key not in later}
    if lines := differences(saved, identity):
        raise UserError(
            f"{last.parent} belongs to another configuration; choose another --out, or give the same settings:\n  "
            + "\n  ".join(lines)
        )
    return state
