"""Functions that run and time a .tflite file in LCE's interpreter, which has a separate virtual environment."""

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

# Seconds after which the process is stopped, for its start and for each run. A 224x224 image takes less than a second,
# even on a busy machine.
_STARTING, _PER_RUN = 300.0, 10.0
_CHILD = Path(__file__).with_name("interpreter_child.py")


def lce_python(python: str | os.PathLike[str] | None = None) -> Path:
    """Returns a Python interpreter that has LCE (Larq Compute Engine): `python`, or by default that of its environment.

    Raises ExportError, with how to make the environment, if there is none.
    """
    found = environments.find("lce", python=python)
    if found is None:
        raise ExportError(
            "LCE's interpreter is not installed: make its virtual environment (about 290 MB) with `bnn-itrd validate "
            "--setup lce`, or name the Python interpreter of one that has larq-compute-engine and numpy<2 with "
            "--lce-python"
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
    """Runs a .tflite file in LCE's interpreter; returns its outputs and, with repeats > 0, the time of one run.

    images: (n, h, w, c), or whatever layout the file has; the result is ([output (n, ...), ...], {"milliseconds":
    ...}). threads: of the interpreter; repeats, warmup: timed runs, and runs before them; indirect: whether LCE uses
    its indirect BGEMM kernel instead of its default one; xnnpack: whether XNNPACK runs the other operations.
    """
    arguments = {"file": str(file.absolute()), "threads": threads, "repeats": repeats, "warmup": warmup}
    arguments |= {"indirect": indirect, "xnnpack": xnnpack}
    timeout = _STARTING + _PER_RUN * (len(images) + repeats + warmup)
    outputs, results = environments.call(
        python, _CHILD, arrays={"images": images}, arguments=arguments, timeout=timeout
    )
    return [outputs[f"output{i}"] for i in range(len(outputs))], results


def as_stored(images: np.ndarray) -> np.ndarray:
    """Returns images (n, c, h, w) as (n, h, w, c), the layout of a .tflite file; an array of other rank unchanged."""
    return np.ascontiguousarray(rearrange(images, "n c h w -> n h w c") if images.ndim == 4 else images)


def _checked(images: np.ndarray | Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the images in the file's layout. Raises ValueError if their shape or dtype is not that of the file.

    shape: of the file's input, (n, h, w, c) for images.
    """
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    takes = shape[1:] if len(shape) != 4 else (shape[3], *shape[1:3])
    if array.ndim != len(shape) or array.shape[1:] != takes:
        raise ValueError(f"images must be (n, {', '.join(map(str, takes))}) for this file, got {array.shape}")
    if array.dtype != np.float32:
        raise ValueError(f"images must be normalised float32 numbers for this file, got {array.dtype}")
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
    """Runs a .tflite file in LCE's interpreter, image by image, and returns the logits (n, classes), float32.

    images: normalised, (n, c, h, w), float32; python: an interpreter that has larq-compute-engine, by default that of
    the environment that `runtimes.setup("lce")` made. LCE uses its indirect BGEMM kernel and `threads` threads.
    Raises ValueError on images that do not fit or threads < 1, FileNotFoundError if there is no such file, ExportError
    if the file is damaged or of a newer format, or the interpreter is missing or fails.

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
    """Returns how many milliseconds a .tflite file takes for one random image in LCE's interpreter, as a median.

    repeats: number of timed runs; warmup: number of runs before them that are not timed; python, threads: see
    `run_lce`. Raises ValueError on threads or repeats < 1, or warmup < 0, and otherwise what `run_lce` raises.

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
