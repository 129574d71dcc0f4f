"""The checksum of a file, stored inside it, so that a damaged file is found, whatever its format is."""

from __future__ import annotations

import hashlib

from .errors import ExportError

__all__ = ["NO_DIGEST", "fits", "seal"]

# The entry in the metadata while the digest of the file is computed.
NO_DIGEST = "0" * 64


def seal(data: bytes) -> bytes:
    """Puts the file's sha256 in the place of `NO_DIGEST`. Raises ExportError where that does not occur exactly once.

    >>> fits(seal(b"a file: " + NO_DIGEST.encode()), "0" * 64)
    False
    """
    if data.count(NO_DIGEST.encode()) != 1:
        raise ExportError(
            "the place for the checksum must occur once in the file: is a text of 64 zeros in the metadata?"
        )
    return data.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode())


def fits(data: bytes, digest: object) -> bool:
    """Whether `digest`, from the file's metadata, is the sha256 of the file with zeros in its place."""
    if not isinstance(digest, str) or len(digest) != len(NO_DIGEST):
        return False
    return hashlib.sha256(data.replace(digest.encode(), NO_DIGEST.encode(), 1)).hexdigest() == digest
