"""The script that ``python -m bnn_itrd.cli`` runs; it is the same as the command ``bnn-itrd``."""

from __future__ import annotations

import sys

from bnn_itrd.cli import main

if __name__ == "__main__":
    sys.exit(main())
