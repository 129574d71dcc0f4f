"""Latencies of exported files: medians, and ratios to a reference with their spread."""

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
    """Returns (.onnx files with the reference first, .tflite files). Raises UserError on files that cannot be timed."""
    onnx: list[Path] = []
    lce: list[Path] = []
    for file in [*([against] if against is not None else []), *(f for f in files if f != against)]:
        name = target_of(file).name
        if name in ("qonnx", "finn"):
            raise UserError(
                f"{file} cannot be timed: qonnx runs it node by node on the CPU, which says nothing about an FPGA"
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
    """Times exported files; returns a row per number of threads, batch size, file and form, in ms per image.

    The files run in turns, a few times each, so that what slows the machine slows all of them (`time_onnx`). The
    reference (`against`, else the first .onnx file, in its stock form) has the ratio 1. A .tflite runs in a process of
    its own, after the others. budget: seconds after which no further turn of the .onnx files begins, but at least two
    are made, for each number of threads and batch size.
    Raises UserError on a file that cannot be timed, FileNotFoundError, ExportError.
    """
    onnx, lce = _by_runtime(files, against)
    if lce:
        if 1 not in batches:
            raise UserError(f"{lce[0]}: a .tflite is timed at batch 1 only, add it to --batch")
        from bnn_itrd.export.lce.interpreter import lce_python as interpreter

        interpreter(lce_python)  # raises now if there is none, and not after minutes of measuring
    rows: list[dict[str, Any]] = []
    for count in threads:
        measured = time_onnx(onnx, threads=[count], batches=batches, repeats=repeats, budget=budget) if onnx else []
        reference = next((r["ms_per_image"] for r in measured if r["batch"] == 1 and r["form"] == "stock"), None)
        rows += measured
        rows += [_lce_row(file, count, repeats, reference, lce_python) for file in lce]
    return rows


def _lce_row(file: Path, threads: int, repeats: int, reference: float | None, python: str | None) -> dict[str, Any]:
    from bnn_itrd.export.lce import time_lce

    milliseconds = time_lce(file, threads=threads, repeats=repeats, python=python)
    row = timing_row(file, "lce", threads=threads, batch=1, seconds=np.array([milliseconds / 1000]), reference=None)
    return {**row, "ratio": None if reference is None else reference / milliseconds}
