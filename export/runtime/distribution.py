"""The name and version of the installed package that these modules belong to, `bnn-itrd` or `bnn-itrd-runtime`."""

from __future__ import annotations

import importlib.metadata

__all__ = ["DISTRIBUTION", "installed_version"]

# The package's name for pip, made from the name by which these modules were imported (bnn_itrd or bnn_itrd_runtime).
DISTRIBUTION = __name__.partition(".")[0].replace("_", "-")


def installed_version(name: str = DISTRIBUTION) -> str:
    """Returns the version of an installed package, or "unknown" if none has that name. name: as pip knows it.

    >>> installed_version("no-such-distribution")
    'unknown'
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
