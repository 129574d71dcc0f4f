"""`python -m bnn_itrd.export.runtime.native`: prints the native library's path, or why there is none (status 1)."""

from __future__ import annotations

import sys

from . import library_path, why_unavailable

if __name__ == "__main__":
    path = library_path()
    if path is None:
        sys.exit(why_unavailable())
    print(path)
