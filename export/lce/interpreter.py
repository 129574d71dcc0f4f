"""A .tflite file in LCE's own interpreter, which has a virtual environment of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from torch import Tensor

from bnn_itrd.export.lce.reader import input_shape, read_lce_model
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtimes import environments

__all__ = ["call_interpreter", "lce_python", "run_lce", "time_lce"]

# Seconds after which something hangs: one run of a 224x224 image takes a fraction of one, under load too.
_STARTING, _PER_RUN = 300.0, 10.0
_CHILD = Path(__file__).with_name("interpreter_child.py")


def lce_python(python: str | os.PathLike[str] | None = None) -> Path:
    """The interpreter of the runtime lce. Raises ExportError where there is none, with the way to get it."""
    found = environments.find("lce", python=python)
    if found is None:
        raise ExportError(
            "LCE's interpreter is not there: `bnn-itrd validate --setup lce` makes its environment (about 290 MB), or "
            "name the python of one that has larq-compute-engine and numpy<2 with --lce-python"
        )
    return found


def call_interpreter(
    python: Path,
    file: Path,
    images: np.ndarray,
    *,
    threads: int = 1,
    repeats: int = 0,
    warmup: int = 0,
    indirect: bool = True,
    xnnpack: bool = False,
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The file's outputs on images (n, ...) as it stores them, and with repeats > 0 the time of one run.

    indirect: the indirect BGEMM kernel, else the one LCE registers by default; xnnpack: that delegate for the rest.
    """
    arguments = {"file": str(file.absolute()), "threads": threads, "repeats": repeats, "warmup": warmup}
    arguments |= {"indirect": indirect, "xnnpack": xnnpack}
    timeout = _STARTING + _PER_RUN * (len(images) + repeats + warmup)
    outputs, results = environments.call(
        python, _CHILD, arrays={"images": images}, arguments=arguments, timeout=timeout
    )
    return [outputs[f"output{i}"] for i in range(len(outputs))], results


def as_stored(images: np.ndarray) -> np.ndarray:
    """(n, c, h, w) as (n, h, w, c); other ranks as they are."""
    return np.ascontiguousarray(rearrange(images, "n c h w -> n h w c") if images.ndim == 4 else images)


def _checked(images: np.ndarray | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """The images as the file stores them. Raises ValueError where they do not fit."""
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    takes = shape[1:] if len(shape) != 4 else (shape[3], *shape[1:3])
    if array.ndim != len(shape) or array.shape[1:] != takes:
        raise ValueError(f"images must be (n, {', '.join(map(str, takes))}) for this file, got {array.shape}")
    if array.dtype != np.float32:
        raise ValueError(f"images must be float32 (normalised) for this file, got {array.dtype}")
    if not len(array):
        raise ValueError("images must hold at least one image, got none")
    return as_stored(array)


def run_lce(
    path: str | os.PathLike[str],
    images: np.ndarray | Tensor,
    *,
    python: str | os.PathLike[str] | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Logits (n, k), float32, of normalised images (n, c, h, w), float32, fed one by one to LCE's interpreter.

    python: an interpreter that has larq-compute-engine; the environment `runtimes.setup` made by default. The indirect
    BGEMM kernel, `threads` threads. Raises ValueError on images that do not fit or threads < 1, FileNotFoundError,
    ExportError on a file that is damaged or newer than this package reads, and where the interpreter is missing or
    fails.
    """
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    model, _ = read_lce_model(path, python=python)
    stored = _checked(images, input_shape(model))
    outputs, _ = call_interpreter(lce_python(python), Path(path), stored, threads=threads)
    return outputs[0]


def time_lce(
    path: str | os.PathLike[str],
    *,
    python: str | os.PathLike[str] | None = None,
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 5,
) -> float:
    """Median milliseconds per image at batch 1 on a random image, in LCE's interpreter; else as `run_lce`.

    Raises ValueError on threads or repeats < 1, or warmup < 0.
    """
    for name, value, low in (("threads", threads, 1), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < low:
            raise ValueError(f"{name} must be >= {low}, got {value}")
    model, _ = read_lce_model(path, python=python)
    shape = input_shape(model)
    images = np.random.default_rng(0).standard_normal((1, *shape[1:]), np.float32)
    _, results = call_interpreter(
        lce_python(python), Path(path), images, threads=threads, repeats=repeats, warmup=warmup
    )
    return float(results["milliseconds"])
