"""A script that `environments.call` runs in the environment of LCE; it runs or times a .tflite file.

LCE's library is loaded by its path because importing its package would import TensorFlow.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]


def _interpreter(path: str, threads: int, indirect: bool, xnnpack: bool) -> Any:
    """Returns LCE's interpreter with the file loaded; indirect, xnnpack: see `call_interpreter`."""
    package = importlib.util.find_spec("larq_compute_engine")
    if package is None or package.origin is None:
        raise ImportError("No module named 'larq_compute_engine'")
    library = Path(package.origin).parent / "tflite" / "python" / "interpreter_wrapper_lite.so"
    spec = importlib.util.spec_from_file_location("interpreter_wrapper_lite", library)
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # The False means that LCE does not use its slow reference kernel.
    return module.LiteInterpreter(Path(path).read_bytes(), threads, False, indirect, xnnpack)


def main(arrays: dict[str, np.ndarray], arguments: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Runs a .tflite file on images; returns its outputs and, with repeats > 0, the milliseconds that one image takes.

    arrays: ``images`` (n, ...) in the file's layout; arguments: file, threads, indirect, xnnpack, repeats, warmup, as
    in `call_interpreter`. The result is ``{"output0": (n, ...), "output1": ...}`` and ``{"milliseconds": median}`` or
    {}.
    """
    interpreter = _interpreter(*(arguments[name] for name in ("file", "threads", "indirect", "xnnpack")))
    images = arrays["images"]
    batch = interpreter.input_shapes[0][0]
    runs = [interpreter.predict([images[i : i + batch]]) for i in range(0, len(images), batch)]
    outputs = {f"output{k}": np.concatenate([run[k] for run in runs]) for k in range(len(runs[0]))}
    if not arguments["repeats"]:
        return outputs, {}
    seconds = []
    for turn in range(arguments["warmup"] + arguments["repeats"]):
        start = time.perf_counter()
        interpreter.predict([images[:batch]])
        if turn >= arguments["warmup"]:
            seconds.append(time.perf_counter() - start)
    return outputs, {"milliseconds": 1000 * statistics.median(seconds) / batch}
