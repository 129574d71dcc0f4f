"""Functions that write a file atomically (completely or not at all), and one that hashes a file."""

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
# Temporary files are called .NAME.X.tmp, where X is from tempfile, a UUID or a process id. The pattern is narrow so
# that it does not match a user's own file, such as .notes.tmp.
_HALF_WRITTEN = re.compile(r"\..+\.([a-z0-9_]{8}|[0-9a-f]{32}|[0-9]+)\.tmp")


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file atomically: a temporary file in the same folder is written, synced to disk, and renamed.

    write: a function that writes the content into an open binary file. Raises UserError if the disk is full or a
    permission is missing; an older file of that name then stays unchanged.
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
            kept = "; the older file of that name is unchanged" if path.exists() else ""
            raise UserError(f"cannot write {path}: {error}{kept}. {remedy(error, _OTHER)}") from error
        raise


def remove_half_written(folder: Path) -> None:
    """Removes temporary files that `write_file` left in a folder because its process was killed."""
    for path in folder.glob(".*.tmp"):
        if _HALF_WRITTEN.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def _umask() -> int:
    """Returns the process's umask; a lock is needed because it can only be read by setting it."""
    with _UMASK:
        umask = os.umask(0)
        os.umask(umask)
    return umask


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_yaml(path: Path, value: dict[str, Any]) -> None:
    """Writes a nested dict as a YAML file, atomically; raises UserError as `write_file` does."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    write_file(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Writes a plain value as an indented JSON file, atomically; raises UserError as `write_file` does."""
    write_file(path, lambda file: file.write((json.dumps(value, indent=1) + "\n").encode()))
