"""Fixtures of the tests of export/lce: the interpreter of LCE's environment, and a small network with its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.exported import randomised
from torch import nn

from bnn_itrd.export.lce import to_lce
from bnn_itrd.quant import BinaryConv2d


@pytest.fixture(scope="session")
def lce(runtimes: Callable[[str], Path]) -> Path:
    """Returns the Python interpreter with Larq Compute Engine: the user's, or else one made for this run (75 MB)."""
    return runtimes("lce")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lce")


@pytest.fixture(scope="module")
def tiny() -> Any:
    torch.manual_seed(11)
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 40, 3, padding=1),
            nn.BatchNorm2d(40),
            nn.Hardtanh(),
            BinaryConv2d(40, 8, 3, 2, 1, bias=True),
            nn.BatchNorm2d(8),
            nn.Flatten(),
            nn.Linear(128, 3),
        )
    )
    model.input_shape = (3, 8, 8)
    return model


@pytest.fixture(scope="module")
def tiny_file(tiny: nn.Module, lce: Path, folder: Path) -> Path:
    return to_lce(
        tiny,
        folder / "tiny.tflite",
        classes=["cat", "dog", "änderung"],
        normalization=([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
        metadata={"source_sha256": "0123", "runs": [1, 2]},
    )
