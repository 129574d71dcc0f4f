"""The script results/run_queue.py, imported as the module `queue`."""

from __future__ import annotations

from helpers.scripts import ROOT, load_script

RESULTS = ROOT / "results"
queue = load_script("results/run_queue.py")
