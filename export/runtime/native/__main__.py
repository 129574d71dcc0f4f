"""Prints the path of the native library, as `python -m bnn_itrd.export.runtime.native`.

Without a usable library it prints the reason to stderr and exits with status 1.
"""

from __future__ import annotations

import sys

from . import library_path, why_unavailable

if __name__ == "__main__":
    path = library_path()
    if path is None:
        sys.exit(why_unavailable())
    print(path)
