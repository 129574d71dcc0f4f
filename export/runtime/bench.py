"""Timing: milliseconds per image of sessions or files, one by one or in turns in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import ExportError
from .predict import run_session
from .sessions import session, uses_native

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "SPINNING",
    "compare_milliseconds",
    "interleaved_seconds",
    "milliseconds_per_image",
    "time_onnx",
    "timing_cells",
    "timing_row",
]

# Seconds after which the idle threads of an onnxruntime session sleep.
SPINNING = 0.5


K = TypeVar("K", bound=Hashable)


def _random_input(opened: onnxruntime.InferenceSession, batch: int) -> dict[str, np.ndarray]:
    """For the first input. Raises ExportError where the file does not say of what size its images are."""
    source = opened.get_inputs()[0]
    shape = [batch, *source.shape[1:]]
    if not all(isinstance(size, int) for size in shape):
        raise ExportError(f"the input {source.name} of the file has no fixed size, {source.shape}: it cannot be timed")
    generator = np.random.default_rng(0)
    if source.type == "tensor(uint8)":
        return {source.name: generator.integers(0, 256, shape, np.uint8)}
    return {source.name: generator.standard_normal(shape, np.float32)}


# Of one session's turn: how long it runs unmeasured, and after how long a measured block may end.
_WARM, _BLOCK, _BLOCK_CALLS = 0.01, 0.02, 5
# However short the time is: a median and a spread need some.
_FEWEST_TURNS = 3


def _turn(opened: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> float:
    """Median seconds of a block of calls, once the caches and the clock are this network's own.

    A small fast network needs about ten calls for that after a large one; alone in its process it is always so.
    """
    began = time.perf_counter()
    while time.perf_counter() - began < _WARM:  # at least once
        opened.run(None, inputs)
    seconds: list[float] = []
    while len(seconds) < _BLOCK_CALLS and sum(seconds) < _BLOCK:
        start = time.perf_counter()
        opened.run(None, inputs)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def interleaved_seconds(
    sessions: Mapping[K, onnxruntime.InferenceSession],
    *,
    batch: int = 1,
    repeats: int = 50,
    pause: float = 0.0,
    budget: float = math.inf,
) -> dict[K, list[float]]:
    """Seconds of a call of each session, `repeats` times in turns: what slows the machine slows them all.

    batch: images per call; random input, always the same. pause: seconds before each session's turn; with several
    threads, the last one's still spin for a while and would take the cores of the next. budget: seconds after which no
    turn begins, from the third on. Value i of every list is the median of a few calls in turn i. Raises ValueError on
    batch or repeats < 1, or pause or budget < 0, ExportError on a file whose input has no fixed size, or that fails
    on it.
    """
    began = time.perf_counter()
    for what, value, low in (("batch", batch, 1), ("repeats", repeats, 1), ("pause", pause, 0), ("budget", budget, 0)):
        if value < low:
            raise ValueError(f"{what} must be >= {low}, got {value}")
    inputs = {name: _random_input(opened, batch) for name, opened in sessions.items()}
    for name, opened in sessions.items():
        run_session(opened, inputs[name])
    seconds: dict[K, list[float]] = {name: [] for name in sessions}
    for turn in range(repeats):
        if turn >= _FEWEST_TURNS and time.perf_counter() - began > budget:
            break
        for name, opened in sessions.items():
            time.sleep(pause)
            seconds[name].append(_turn(opened, inputs[name]))
    return seconds


def compare_milliseconds(
    sessions: Mapping[K, onnxruntime.InferenceSession], *, batch: int = 1, repeats: int = 20
) -> dict[K, float]:
    """Median milliseconds per image of each session; see `interleaved_seconds`, whose errors it raises."""
    seconds = interleaved_seconds(sessions, batch=batch, repeats=repeats)
    return {name: 1000 * statistics.median(times) / batch for name, times in seconds.items()}


def milliseconds_per_image(opened: onnxruntime.InferenceSession, *, batch: int = 1, repeats: int = 20) -> float:
    """Median milliseconds per image of one session, `batch` images per call; see `compare_milliseconds`."""
    return compare_milliseconds({"": opened}, batch=batch, repeats=repeats)[""]


def _both_forms(files: Sequence[Path], threads: int) -> dict[tuple[Path, str], onnxruntime.InferenceSession]:
    """Opens the files, (file, form) -> session: one with our operations in both forms, where the library is there."""
    opened: dict[tuple[Path, str], onnxruntime.InferenceSession] = {}
    for file in files:
        best = session(file, threads=threads)  # says why where it has to do without the library
        if uses_native(best):
            opened[file, "native"], best = best, session(file, threads=threads, native=False)
        opened[file, "stock"] = best
    return opened


def timing_row(
    file: Path, form: str, *, threads: int, batch: int, seconds: np.ndarray, reference: np.ndarray | None
) -> dict[str, Any]:
    """One measurement as plain values: `ratio` is that of the medians, `ratio_low` and `ratio_high` are the 10 and
    90 % quantiles of the ratio within a turn. seconds, reference: of a call in each turn, (repeats,)."""
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


def time_onnx(
    files: Sequence[Path],
    *,
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    repeats: int = 40,
    budget: float = math.inf,
) -> list[dict[str, Any]]:
    """Times files in turns in one process; a `timing_row` per number of threads, batch size, file and form.

    A file of a binary network is timed twice where the native library is there: with it, and as a stock onnxruntime
    runs it. The reference, of ratio 1, is the first file in its stock form. budget: of each number of threads and
    batch size, see `interleaved_seconds`. Raises what `session` and `interleaved_seconds` raise.
    """
    rows: list[dict[str, Any]] = []
    for count in threads:
        opened = _both_forms(files, count)
        for batch in batches:
            pause = SPINNING if count > 1 else 0.0
            seconds = interleaved_seconds(opened, batch=batch, repeats=repeats, pause=pause, budget=budget)
            times = {key: np.asarray(values) for key, values in seconds.items()}
            reference = times[files[0], "stock"]
            rows += [
                timing_row(file, form, threads=count, batch=batch, seconds=values, reference=reference)
                for (file, form), values in times.items()
            ]
    return rows


def timing_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A `timing_row` as the words of a table, by its columns."""
    return {
        "file": row["file"],
        "form": row["form"],
        "threads": str(row["threads"]),
        "batch": str(row["batch"]),
        "ms/image": f"{row['ms_per_image']:.3f}",
        "faster": "-" if row["ratio"] is None else f"{row['ratio']:.2f}x",
        "10-90 %": "-" if row["ratio_low"] is None else f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}",
        "bytes": f"{row['bytes']:,}",
    }
