"""Measures milliseconds per image of sessions or files, which run in turns, so that a slow machine slows all of them.

A file is measured in two forms: "stock", with onnxruntime's own operations, and "native", with the native library,
which is compiled code that computes binary layers by bit operations.
"""

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

# Seconds after which the idle threads of an onnxruntime session sleep; until then they keep processor cores busy.
SPINNING = 0.5

# The type of the names by which a caller tells its sessions apart.
K = TypeVar("K", bound=Hashable)


def _random_input(opened: onnxruntime.InferenceSession, batch: int) -> dict[str, np.ndarray]:
    """Returns {name of the first input: random images}, the same at each call.

    Raises ExportError if the file does not fix the images' size.
    """
    source = opened.get_inputs()[0]
    shape = [batch, *source.shape[1:]]
    if not all(isinstance(size, int) for size in shape):
        raise ExportError(
            f"the file cannot be timed, because the shape of its input {source.name} is not fixed: {source.shape}. "
            "Export it with images of a fixed size"
        )
    generator = np.random.default_rng(0)
    if source.type == "tensor(uint8)":
        return {source.name: generator.integers(0, 256, shape, np.uint8)}
    return {source.name: generator.standard_normal(shape, np.float32)}


# In its turn a session first runs for _WARM seconds, which are not measured. Then calls are measured one by one, until
# there are _BLOCK_CALLS or they have taken _BLOCK seconds.
_WARM, _BLOCK, _BLOCK_CALLS = 0.01, 0.02, 5
# Number of turns that are made even if `budget` has passed, because a median and quantiles need some.
_FEWEST_TURNS = 3


def _turn(opened: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> float:
    """Runs a session for a few hundredths of a second and returns the median seconds of its calls.

    The first calls are not measured. They bring the network into the processor's caches again: after a large network
    has run, a small one needs about ten of them.
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
    """Times the sessions in turns, so that a slower machine slows all of them; returns seconds per call of each.

    Value i of a session's list is the median of a few calls in turn i. batch: number of images per call (random, always
    the same); repeats: number of turns; pause: seconds to wait before each session's turn, because the threads of the
    previous session keep the cores busy for a while; budget: seconds after which no further turn begins, except that
    at least three are made.
    Raises ValueError if batch or repeats is below 1, or pause or budget below 0. Raises ExportError if a session's
    input has no fixed size, or if onnxruntime cannot run it.

    >>> opened = {form: session("student.onnx", native=False) for form in ("first", "second")}
    >>> {name: len(seconds) for name, seconds in interleaved_seconds(opened, repeats=3).items()}
    {'first': 3, 'second': 3}
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
    """Returns the median milliseconds per image of each session, measured in `repeats` turns.

    batch: number of images per call. Raises what `interleaved_seconds` raises.

    >>> list(compare_milliseconds({"student": session("student.onnx", native=False)}, repeats=3))
    ['student']
    """
    seconds = interleaved_seconds(sessions, batch=batch, repeats=repeats)
    return {name: 1000 * statistics.median(times) / batch for name, times in seconds.items()}


def milliseconds_per_image(opened: onnxruntime.InferenceSession, *, batch: int = 1, repeats: int = 20) -> float:
    """Returns the median milliseconds per image of one session, from `repeats` runs with `batch` images per call.

    Raises what `interleaved_seconds` raises.

    >>> milliseconds_per_image(session("student.onnx", native=False), batch=8, repeats=3) > 0
    True
    """
    return compare_milliseconds({"": opened}, batch=batch, repeats=repeats)[""]


def _both_forms(files: Sequence[Path], threads: int) -> dict[tuple[Path, str], onnxruntime.InferenceSession]:
    """Opens each file without the native library ("stock") and, if it can be used on the file, with it ("native").

    Returns the sessions by (file, form).
    """
    opened: dict[tuple[Path, str], onnxruntime.InferenceSession] = {}
    for file in files:
        best = session(file, threads=threads)  # warns where the library cannot be used
        if uses_native(best):
            opened[file, "native"], best = best, session(file, threads=threads, native=False)
        opened[file, "stock"] = best
    return opened


def timing_row(
    file: Path, form: str, *, threads: int, batch: int, seconds: np.ndarray, reference: np.ndarray | None
) -> dict[str, Any]:
    """Returns one measurement as a dict of plain values, which is a row of the table that `bench` prints.

    seconds: seconds per call of the file in each turn, (repeats,); reference: those of the file with which it is
    compared, or None. `ms_per_image` is a median; `ratio` says how many times faster than the reference the file is,
    by the medians; `ratio_low` and `ratio_high` are the 10 and 90 % quantiles of the ratio within a turn.

    >>> times = {"seconds": np.array([0.2, 0.4]), "reference": np.array([0.6, 0.6])}
    >>> row = timing_row(Path("student.onnx"), "stock", threads=1, batch=10, **times)
    >>> round(row["ms_per_image"]), round(row["ratio"], 2)
    (30, 2.0)
    """
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
    """Times ONNX files in turns; returns a `timing_row` for each number of threads, batch size, file and form.

    A file with binary layers has two forms if the compiled native library can be used: "native", with the library, and
    "stock", without it. Other files are "stock". All times are compared with the first file's as "stock". batches:
    numbers of images per call; repeats: number of turns; budget: seconds after which, for each number of threads and
    batch size, no further turn begins. Raises what `session` and `interleaved_seconds` raise.

    >>> [row["ratio"] for row in time_onnx([Path("student.onnx")], repeats=1) if row["form"] == "stock"]
    [1.0]
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
    """Returns the values of a `timing_row` as texts, by the heading of their column.

    >>> row = timing_row(Path("student.onnx"), "stock", threads=1, batch=1, seconds=np.array([0.5]), reference=None)
    >>> timing_cells(row)["ms/image"]
    '500.000'
    """
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
