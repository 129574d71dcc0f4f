"""Helpers for test files of several folders: a tiny data set on disk, and the options of a run that takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TINY = [
    "--data.name=cifar10",
    "--train.epochs=2",
    "--teacher_train.epochs=1",
    "--train.batch_size=32",
    "--teacher_train.batch_size=32",
    "--train.warmup_epochs=0",
    "--teacher_train.warmup_epochs=0",
    "--log.progress=false",
    "--fabric.threads=1",
    "--fabric.accelerator=cpu",
]


def write_npz(path: Path, *, n: int = 96, size: int = 8, classes: int = 3, seed: int = 0) -> Path:
    """Writes a data set of images (n, size, size, 3) that can be learned, and returns its path.

    Each class makes one colour channel brighter. There are half as many test images as training images.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", n), ("test", n // 2)):
        labels = np.arange(count) % classes
        images = rng.integers(0, 120, (count, size, size, 3), dtype=np.uint8)
        images[np.arange(count), :, :, labels % 3] += 120
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images, labels
    np.savez(path, **arrays, classes=np.array([f"class{i}" for i in range(classes)]))
    return path
