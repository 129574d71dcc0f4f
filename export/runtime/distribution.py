"""The distribution that these modules are part of: `bnn-itrd`, or the smaller `bnn-itrd-runtime`."""

from __future__ import annotations

import importlib.metadata

__all__ = ["DISTRIBUTION", "installed_version"]

# Its name on PyPI, from the top-level package's, `bnn_itrd` or `bnn_itrd_runtime`.
DISTRIBUTION = __name__.partition(".")[0].replace("_", "-")


def installed_version(name: str = DISTRIBUTION) -> str:
    """Returns the version of an installed distribution, or "unknown" where none has that name.

    >>> installed_version("no-such-distribution")
    'unknown'
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
