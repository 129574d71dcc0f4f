"""The script results/run_queue.py, imported as the module `queue`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def load_queue() -> Any:
    """Imports results/run_queue.py by its path, because it is not part of a package; returns the module."""
    spec = importlib.util.spec_from_file_location("run_queue", RESULTS / "run_queue.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_queue"] = module  # dataclasses look up their module here
    spec.loader.exec_module(module)
    return module


queue = load_queue()
