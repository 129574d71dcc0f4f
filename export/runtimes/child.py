"""A program that `environments.call` starts in another environment's Python: ``child.py SCRIPT FOLDER``.

It calls the function ``main`` of SCRIPT with the contents of arrays.npz and arguments.json in FOLDER, and writes what
it returns to results.npz and results.json there. It imports NumPy only.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np

__all__ = ["run_script"]


def run_script(script: str, folder: Path) -> None:
    """Calls a script's ``main(arrays, arguments) -> (arrays, results)``; reads and writes the files in `folder`."""
    with np.load(folder / "arrays.npz", allow_pickle=False) as loaded:
        arrays = {key: loaded[key] for key in loaded.files}
    arguments = json.loads((folder / "arguments.json").read_text())
    outputs, results = runpy.run_path(script)["main"](arrays, arguments)
    np.savez(folder / "results.npz", **outputs)
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    run_script(sys.argv[1], Path(sys.argv[2]))
