"""Running a .tflite file in LCE's interpreter, which has a virtual environment of its own."""

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

# Seconds after which the process is stopped; a run of one 224x224 image takes less than a second, even under load.
_STARTING, _PER_RUN = 300.0, 10.0
_CHILD = Path(__file__).with_name("interpreter_child.py")


def lce_python(python: str | os.PathLike[str] | None = None) -> Path:
    """Returns the Python of the runtime lce. Raises ExportError, with how to make it, where there is none."""
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
    """Returns the file's outputs for images (n, ...) in its own layout and, with repeats > 0, the time of one run.

    indirect: use LCE's indirect BGEMM kernel, and not its default one; xnnpack: run other operations with XNNPACK.
    """
    arguments = {"file": str(file.absolute()), "threads": threads, "repeats": repeats, "warmup": warmup}
    arguments |= {"indirect": indirect, "xnnpack": xnnpack}
    timeout = _STARTING + _PER_RUN * (len(images) + repeats + warmup)
    outputs, results = environments.call(
        python, _CHILD, arrays={"images": images}, arguments=arguments, timeout=timeout
    )
    return [outputs[f"output{i}"] for i in range(len(outputs))], results


def as_stored(images: np.ndarray) -> np.ndarray:
    """Returns (n, c, h, w) as (n, h, w, c), and an array of another rank as it is."""
    return np.ascontiguousarray(rearrange(images, "n c h w -> n h w c") if images.ndim == 4 else images)


def _checked(images: np.ndarray | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the images in the file's layout. Raises ValueError where they do not fit."""
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
    """Returns the logits (n, k), float32, of normalised images (n, c, h, w), float32, from LCE's interpreter.

    The images are run one by one.
    python: an interpreter that has larq-compute-engine, by default that of the environment that `runtimes.setup` made.
    It uses the indirect BGEMM kernel and `threads` threads. Raises ValueError on images that do not fit or threads < 1,
    FileNotFoundError, ExportError on a file that is damaged or has a newer format than this package reads, and where
    the interpreter is missing or fails.

    >>> run_lce("student.tflite", images).shape  # doctest: +SKIP
    (8, 2)
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
    """Returns the median milliseconds of a run on one random image in LCE's interpreter.

    python, threads: see `run_lce`; repeats: timed runs, after `warmup` runs that are not timed. Raises ValueError on
    threads or repeats < 1, or warmup < 0, and otherwise what `run_lce` raises.

    >>> time_lce("student.tflite", threads=4)  # doctest: +SKIP
    1.9
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
