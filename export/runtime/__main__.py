"""`python -m bnn_itrd_runtime`: the command line of the runtime."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
