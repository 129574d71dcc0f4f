"""Timing: milliseconds per image of sessions, one by one or interleaved in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["compare_milliseconds", "interleaved_seconds", "milliseconds_per_image"]

K = TypeVar("K", bound=Hashable)


def _random_input(opened: onnxruntime.InferenceSession, batch: int) -> dict[str, np.ndarray]:
    source = opened.get_inputs()[0]
    shape = [batch, *source.shape[1:]]
    generator = np.random.default_rng(0)
    if source.type == "tensor(uint8)":
        return {source.name: generator.integers(0, 256, shape, np.uint8)}
    return {source.name: generator.standard_normal(shape, np.float32)}


def interleaved_seconds(
    sessions: Mapping[K, onnxruntime.InferenceSession], *, batch: int = 1, repeats: int = 50, warmup: int = 5
) -> dict[K, list[float]]:
    """Seconds of each call of each session, run in turns: what slows the machine slows them all.

    batch: images per call; random input, always the same. Value i of every list is of turn i.
    Raises ValueError on batch or repeats < 1, or warmup < 0.
    """
    for name, value, low in (("batch", batch, 1), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < low:
            raise ValueError(f"{name} must be >= {low}, got {value}")
    inputs = {name: _random_input(opened, batch) for name, opened in sessions.items()}
    seconds: dict[K, list[float]] = {name: [] for name in sessions}
    for turn in range(warmup + repeats):
        for name, opened in sessions.items():
            # Once for its caches: after another network's weights every network begins cold.
            opened.run(None, inputs[name])
            start = time.perf_counter()
            opened.run(None, inputs[name])
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                seconds[name].append(elapsed)
    return seconds


def compare_milliseconds(
    sessions: Mapping[K, onnxruntime.InferenceSession],
    *,
    batch: int = 1,
    repeats: int = 50,
    warmup: int = 5,
) -> dict[K, float]:
    """Median milliseconds per image of each session; see `interleaved_seconds`, whose errors it raises."""
    seconds = interleaved_seconds(sessions, batch=batch, repeats=repeats, warmup=warmup)
    return {name: 1000 * statistics.median(times) / batch for name, times in seconds.items()}


def milliseconds_per_image(
    opened: onnxruntime.InferenceSession, *, batch: int = 1, repeats: int = 50, warmup: int = 5
) -> float:
    """Median milliseconds per image of one session, `batch` images per call; see `compare_milliseconds`."""
    return compare_milliseconds({"": opened}, batch=batch, repeats=repeats, warmup=warmup)[""]
