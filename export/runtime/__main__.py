"""Runs the command `bnn-itrd-runtime`, as `python -m bnn_itrd_runtime`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
