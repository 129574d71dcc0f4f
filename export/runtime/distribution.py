"""Which distribution these modules came in: `bnn-itrd`, or `bnn-itrd-runtime` by itself."""

from __future__ import annotations

import importlib.metadata

__all__ = ["DISTRIBUTION", "installed_version"]

# As pip calls it: the package's first name, `bnn_itrd` or `bnn_itrd_runtime`.
DISTRIBUTION = __name__.partition(".")[0].replace("_", "-")


def installed_version(name: str = DISTRIBUTION) -> str:
    """The version of an installed distribution, "unknown" where there is none of that name.

    >>> installed_version("no-such-distribution")
    'unknown'
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
