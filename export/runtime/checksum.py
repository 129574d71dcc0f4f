"""A checksum inside the file it is of: so that a flipped bit is found, whatever the format."""

from __future__ import annotations

import hashlib

from .errors import ExportError

__all__ = ["NO_DIGEST", "fits", "seal"]

# Stands in the metadata while the digest of the file is taken.
NO_DIGEST = "0" * 64


def seal(data: bytes) -> bytes:
    """The file with its own sha256 in the place of `NO_DIGEST`. Raises ExportError where that stands not just once."""
    if data.count(NO_DIGEST.encode()) != 1:
        raise ExportError("the file's place for its checksum is not unique")
    return data.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode())


def fits(data: bytes, digest: object) -> bool:
    """Whether `digest`, as the file's metadata gives it, is that of the file with zeros in its place."""
    if not isinstance(digest, str) or len(digest) != len(NO_DIGEST):
        return False
    return hashlib.sha256(data.replace(digest.encode(), NO_DIGEST.encode(), 1)).hexdigest() == digest
