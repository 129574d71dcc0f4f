"""results/run_queue.py, which is a script, as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def load_queue() -> Any:
    """results/run_queue.py, which is a script beside the results and no part of the package."""
    spec = importlib.util.spec_from_file_location("run_queue", RESULTS / "run_queue.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_queue"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


queue = load_queue()
