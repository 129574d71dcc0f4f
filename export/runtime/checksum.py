"""Writes a file's SHA-256 into the file itself and checks it, so that a damaged file is noticed.

It works for any format that can store a text of 64 characters.
"""

from __future__ import annotations

import hashlib

from .errors import ExportError

__all__ = ["NO_DIGEST", "fits", "seal"]

# The text in place of the checksum while it is computed, because a checksum cannot be computed from itself.
NO_DIGEST = "0" * 64


def seal(data: bytes) -> bytes:
    """Returns a file's bytes with their own SHA-256, in hex, written over 64 zeros (`NO_DIGEST`) in them.

    Raises ExportError unless these zeros occur exactly once.

    >>> sealed = seal(b"a file: " + NO_DIGEST.encode())
    >>> len(sealed), fits(sealed, sealed[8:].decode())
    (72, True)
    """
    if data.count(NO_DIGEST.encode()) != 1:
        raise ExportError(
            "the checksum cannot be written: 64 zeros mark its place and must occur once in the file. Is there such a "
            "text in the metadata that you passed?"
        )
    return data.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode())


def fits(data: bytes, digest: object) -> bool:
    """Returns whether a file's bytes are undamaged: whether `digest` is the checksum that `seal` would write into them.

    digest: the checksum from the file's metadata; anything but a text of 64 characters does not fit.

    >>> fits(b"a file: " + NO_DIGEST.encode(), NO_DIGEST)
    False
    """
    if not isinstance(digest, str) or len(digest) != len(NO_DIGEST):
        return False
    return hashlib.sha256(data.replace(digest.encode(), NO_DIGEST.encode(), 1)).hexdigest() == digest
