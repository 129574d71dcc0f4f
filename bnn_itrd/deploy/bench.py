"""Latencies of exported files, side by side: medians, and ratios to a reference with their spread."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.deploy.targets import target_of
from bnn_itrd.environment import cpu_features, cpu_name
from bnn_itrd.errors import UserError

__all__ = ["SPINNING", "describe_machine", "time_files"]

# Seconds after which the idle threads of an onnxruntime session sleep.
SPINNING = 0.5
_FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_vpopcntdq", "asimd")


def describe_machine() -> dict[str, str]:
    """Returns the processor, its features that matter here, cores, the runtime, and which native kernel runs."""
    import onnxruntime

    from bnn_itrd.export.runtime import native

    found = cpu_features()
    reason = native.why_unavailable()
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "features": " ".join(name for name in _FEATURES if name in found) or "unknown",
        "cores": str(os.cpu_count()),
        "onnxruntime": onnxruntime.__version__,
        "kernel": f"none ({reason})" if reason else native.kernel(),
    }


def _sessions(files: Sequence[Path], threads: int) -> dict[tuple[Path, str], Any]:
    """Opens the files, (file, form) -> session: one with our operations in both forms, where the library is there."""
    from bnn_itrd.export import session, uses_native

    opened: dict[tuple[Path, str], Any] = {}
    for file in files:
        best = session(file, threads=threads)  # says why where it has to do without the library
        if uses_native(best):
            opened[file, "native"], best = best, session(file, threads=threads, native=False)
        opened[file, "stock"] = best
    return opened


def _row(
    file: Path, form: str, threads: int, batch: int, seconds: np.ndarray, reference: np.ndarray | None
) -> dict[str, Any]:
    ratios = None if reference is None else reference / seconds
    return {
        "file": str(file),
        "form": form,
        "threads": threads,
        "batch": batch,
        "ms_per_image": 1000 * float(np.median(seconds)) / batch,
        "ratio": None if ratios is None or reference is None else float(np.median(reference) / np.median(seconds)),
        "ratio_low": None if ratios is None else float(np.quantile(ratios, 0.1)),
        "ratio_high": None if ratios is None else float(np.quantile(ratios, 0.9)),
        "bytes": file.stat().st_size,
    }


def time_files(
    files: Sequence[Path],
    *,
    against: Path | None = None,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    repeats: int = 40,
    lce_python: str | None = None,
) -> list[dict[str, Any]]:
    """Times exported files; returns a row per file, form, number of threads and batch size, in ms per image.

    In every turn each candidate runs a few times, so what slows the machine slows them all. `ratio` is that of the
    medians, `ratio_low` and `ratio_high` are the 10 and 90 % quantiles of the ratio within a turn. The reference
    (`against`, else the first .onnx file, in its stock form) has ratio 1. A .tflite runs in a process of its own,
    after the others.
    Raises UserError on a file that cannot be timed, FileNotFoundError, ExportError.
    """
    from bnn_itrd.export import interleaved_seconds

    everything = [*([against] if against is not None else []), *(f for f in files if f != against)]
    onnx: list[Path] = []
    lce: list[Path] = []
    for file in everything:
        name = target_of(file).name
        if name in ("qonnx", "finn"):
            raise UserError(f"{file}: qonnx executes node by node to prove a file; its speed says nothing of an FPGA")
        (lce if name == "lce" else onnx).append(file)
    if against is not None and against not in onnx:
        raise UserError(f"--against must be an .onnx file, got {against}")
    if lce:
        if 1 not in batches:
            raise UserError(f"{lce[0]}: a .tflite is timed at batch 1 only, add it to --batch")
        from bnn_itrd.export.lce.interpreter import lce_python as interpreter

        interpreter(lce_python)  # where there is none it is said now, before minutes of measuring
    rows = []
    for count in threads:
        opened = _sessions(onnx, count)
        pause = SPINNING if count > 1 else 0.0
        for batch in batches:
            seconds = interleaved_seconds(opened, batch=batch, repeats=repeats, pause=pause) if opened else {}
            times = {key: np.asarray(values) for key, values in seconds.items()}
            reference = times.get((onnx[0], "stock")) if onnx else None
            rows += [_row(file, form, count, batch, values, reference) for (file, form), values in times.items()]
            if batch == 1:
                rows += [_lce_row(file, count, repeats, reference, lce_python) for file in lce]
    return rows


def _lce_row(
    file: Path, threads: int, repeats: int, reference: np.ndarray | None, python: str | None
) -> dict[str, Any]:
    from bnn_itrd.export.lce import time_lce

    seconds = time_lce(file, threads=threads, repeats=repeats, python=python) / 1000
    row = _row(file, "lce", threads, 1, np.array([seconds]), None)
    return {**row, "ratio": None if reference is None else float(np.median(reference) / seconds)}
