"""What several test files share: tiny data sets on disk, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# A test machine has few cores, and tests of several processes share them: waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two test files run at a time: with a thread for every core in each, they would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def write_npz(path: Path, *, n: int = 96, size: int = 8, classes: int = 3, seed: int = 0) -> Path:
    """Images that can be learned: the class sets the brightness of one channel."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", n), ("test", n // 2)):
        labels = np.arange(count) % classes
        images = rng.integers(0, 120, (count, size, size, 3), dtype=np.uint8)
        images[np.arange(count), :, :, labels % 3] += 120
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images, labels
    np.savez(path, **arrays, classes=np.array([f"class{i}" for i in range(classes)]))
    return path


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 training and 48 test images of 8x8, 3 classes, in the form `--data.root` takes."""
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


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


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `bnn-itrd ARGS` in a process of its own."""

    def run(*args: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bnn_itrd.cli", *map(str, args)],
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
