"""What an installed bnn-itrd-runtime does with NumPy and onnxruntime alone: for `.ci/wheels` and test_runtime_wheel.py.

    python installed_runtime.py STUDENT.onnx TEACHER.onnx native|stock

Prints JSON: CPU seconds of the import, what it loaded, which kernel runs and why, what the commands said.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import time
import warnings
from typing import Any


class Blocked:
    """An import finder that makes the import of some packages fail."""

    names = ("torch", "torchvision", "lightning", "onnxscript", "sklearn", "onnx", "bnn_itrd", "einops", "PIL")

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raises ImportError if `name` is one of the blocked packages."""
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is not for this process")


def said(runtime_main: Any, *arguments: str) -> tuple[int, str, str]:
    """Runs a command of the runtime; returns (exit status, what it printed, its error messages)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = runtime_main(list(arguments))
    return status, out.getvalue(), err.getvalue()


def main(student: str, teacher: str, form: str) -> None:
    """Opens, runs, times and describes the two files and prints what was found as JSON."""
    sys.meta_path.insert(0, Blocked())  # type: ignore[arg-type]
    began = time.process_time()
    runtime: Any = importlib.import_module("bnn_itrd_runtime")
    seconds, loaded = time.process_time() - began, "onnxruntime" in sys.modules
    import numpy as np

    native, cli = importlib.import_module("bnn_itrd_runtime.native"), importlib.import_module("bnn_itrd_runtime.cli")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        best, stock = runtime.session(student), runtime.session(student, native=False)
    assert runtime.uses_native(best) == (form == "native"), native.why_unavailable()
    x = np.random.default_rng(0).standard_normal((3, *best.get_inputs()[0].shape[1:]), np.float32)
    logits = runtime.predict_file(stock, x)
    assert np.array_equal(runtime.predict_file(best, x), logits)
    status, output, errors = said(cli.main, "bench", student, "--against", teacher, "--repeats", "2", "--json")
    assert (status, errors) == (0, ""), errors
    rows = json.loads(output)["rows"]
    assert [row["form"] for row in rows] == ["stock", "native", "stock"] if form == "native" else ["stock"] * 2
    status, output, errors = said(cli.main, "info", student, "--json")
    assert status == 0, errors
    info = json.loads(output)
    assert info["form"] == form and info["bytes"] > 0
    found = {
        "import_seconds": seconds,
        "onnxruntime_at_import": loaded,
        "warnings": [str(warning.message) for warning in told],
        "logits": logits.tolist(),
        "info": info,
        "without_pillow": said(cli.main, "predict", student, "a.png"),
        "no_file": said(cli.main, "info", "nothing.onnx"),
        "loaded": [name for name in Blocked.names if name in sys.modules],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
