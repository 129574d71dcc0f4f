"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from bnn_itrd.errors import UserError, remedy

__all__ = ["file_hash", "remove_half_written", "write_file", "write_json", "write_yaml"]

_OTHER = "Choose another --out"
_UMASK = threading.Lock()
# .NAME.X.tmp beside NAME, with the X of tempfile, of a UUID or of a process: a user's own .notes.tmp is none.
_HALF_WRITTEN = re.compile(r"\..+\.([a-z0-9_]{8}|[0-9a-f]{32}|[0-9]+)\.tmp")


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
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            kept = "; the file that was there is untouched" if path.exists() else ""
            raise UserError(f"cannot write {path}: {error}{kept}. {remedy(error, _OTHER)}") from error
        raise


def remove_half_written(folder: Path) -> None:
    """Removes what a killed process was writing into a folder, beside the files that it was to replace."""
    for path in folder.glob(".*.tmp"):
        if _HALF_WRITTEN.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def _umask() -> int:
    """The process's umask, which can only be read by setting it: one thread at a time."""
    with _UMASK:
        umask = os.umask(0)
        os.umask(umask)
    return umask


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_yaml(path: Path, value: dict[str, Any]) -> None:
    """A nested dict as YAML, written whole or not at all."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    write_file(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """A plain value as indented JSON, written whole or not at all."""
    write_file(path, lambda file: file.write((json.dumps(value, indent=1) + "\n").encode()))
