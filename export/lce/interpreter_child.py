"""Runs in the environment of LCE: a .tflite file on images, one at a time; see `environments.call`.

The interpreter's library is loaded by its path: importing the package would import TensorFlow.
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
    package = importlib.util.find_spec("larq_compute_engine")
    if package is None or package.origin is None:
        raise ImportError("No module named 'larq_compute_engine'")
    library = Path(package.origin).parent / "tflite" / "python" / "interpreter_wrapper_lite.so"
    spec = importlib.util.spec_from_file_location("interpreter_wrapper_lite", library)
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # In between: not the reference kernel.
    return module.LiteInterpreter(Path(path).read_bytes(), threads, False, indirect, xnnpack)


def main(arrays: dict[str, np.ndarray], arguments: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """arrays: images (n, ...) as the file takes them; arguments: file, threads, indirect, xnnpack, repeats, warmup.

    Gives output0, output1, ... (n, ...), and with repeats > 0 the median milliseconds of one run.
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
