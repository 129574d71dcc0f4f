"""A tiny data set of 16x16 images on disk, and read."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import write_npz

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", size=16)


@pytest.fixture(scope="session")
def data(npz: Path) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(npz)))
