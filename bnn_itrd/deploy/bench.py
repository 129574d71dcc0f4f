"""Functions that time exported files: medians of milliseconds per image, and ratios to a reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.deploy.targets import target_of
from bnn_itrd.errors import UserError
from bnn_itrd.export.runtime.bench import time_onnx, timing_row

__all__ = ["time_files"]


def _by_runtime(files: Sequence[Path], against: Path | None) -> tuple[list[Path], list[Path]]:
    """Returns (.onnx files, with the reference first, and .tflite files).

    against: the reference; None: the first file. Raises UserError if a file cannot be timed, or the reference is no
    .onnx file.
    """
    onnx: list[Path] = []
    lce: list[Path] = []
    for file in [*([against] if against is not None else []), *(f for f in files if f != against)]:
        name = target_of(file).name
        if name in ("qonnx", "finn"):
            raise UserError(
                f"{file} cannot be timed: qonnx runs it node by node on the CPU, which says nothing about an FPGA: "
                "leave it out"
            )
        (lce if name == "lce" else onnx).append(file)
    if against is not None and against not in onnx:
        raise UserError(f"--against must be an .onnx file, got {against}")
    return onnx, lce


def time_files(
    files: Sequence[Path],
    *,
    against: Path | None = None,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    repeats: int = 40,
    budget: float = math.inf,
    lce_python: str | None = None,
) -> list[dict[str, Any]]:
    """Times exported files; returns a row (dict) for each number of threads, batch size, file and form.

    A form is 'native' (with this package's library) or 'stock' (without) for an .onnx file, and 'lce' for a .tflite. A
    row has the median in milliseconds per image, and the ratio to the reference: how many times faster the file is. The
    reference is `against`, or else the first .onnx file, in its stock form.

    The .onnx files take turns, `repeats` times each, so that a busy machine slows all of them alike. A .tflite runs
    afterwards in a process of its own. budget: seconds after which no further turn begins, for each number of threads
    and batch size, though at least three are made. lce_python: a Python interpreter with larq-compute-engine.
    Raises UserError if a file cannot be timed, FileNotFoundError if it is missing, ExportError if it cannot be run.
    """
    onnx, lce = _by_runtime(files, against)
    if lce:
        if 1 not in batches:
            raise UserError(f"{lce[0]}: a .tflite is timed at batch 1 only: add 1 to --batch, or leave the file out")
        from bnn_itrd.export.lce.interpreter import lce_python as interpreter

        interpreter(lce_python)  # raises an error now if there is none, instead of after minutes of measuring
    rows: list[dict[str, Any]] = []
    for count in threads:
        measured = time_onnx(onnx, threads=[count], batches=batches, repeats=repeats, budget=budget) if onnx else []
        reference = next((r["ms_per_image"] for r in measured if r["batch"] == 1 and r["form"] == "stock"), None)
        rows += measured
        rows += [_lce_row(file, count, repeats, reference, lce_python) for file in lce]
    return rows


def _lce_row(file: Path, threads: int, repeats: int, reference: float | None, python: str | None) -> dict[str, Any]:
    """Times a .tflite at batch 1 and returns its row; reference: the reference's milliseconds per image, if known."""
    from bnn_itrd.export.lce import time_lce

    milliseconds = time_lce(file, threads=threads, repeats=repeats, python=python)
    row = timing_row(file, "lce", threads=threads, batch=1, seconds=np.array([milliseconds / 1000]), reference=None)
    return {**row, "ratio": None if reference is None else reference / milliseconds}
