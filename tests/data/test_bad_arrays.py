"""Names of data sets, .npz files and values that are refused, and the words for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.errors import UserError


def test_unknown_data_set_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown data set 'cifr10'.*did you mean 'cifar10'"):
        load_data(DataConfig(name="cifr10"))


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {k: file[k] for k in file.files}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.full(96, 7)}, r"y_train\[0\] is 7, but there are 3 classes \(0 to 2\); 96 labels"),
        ({"y_test": np.full(48, -1)}, r"y_test\[0\] is -1"),
        (
            {"x_train": np.zeros((96, 8, 8), np.uint8)},
            r"x_train must be uint8 images \(n, height, width, 1 or 3\)",
        ),
        ({"x_test": np.zeros((48, 8, 8, 3), np.float32)}, "x_test must be uint8 images.*got float32"),
        ({"y_train": np.zeros(95, np.int64)}, "y_train must be 96 whole numbers"),
        ({"x_test": np.zeros((48, 9, 8, 3), np.uint8)}, "x_train has images of"),
        ({"y_train": None}, "no array 'y_train' in it, found"),
    ],
)
def test_bad_arrays(tiny_npz: Path, tmp_path: Path, change: dict, message: str) -> None:
    changed = {k: v for k, v in {**arrays(tiny_npz), **change}.items() if v is not None}
    np.savez(tmp_path / "bad.npz", **changed)
    with pytest.raises(UserError, match=message):
        load_data(DataConfig(name="cifar10", root=str(tmp_path / "bad.npz")))


def test_missing_and_truncated_files(tiny_npz: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*nothing\.npz: give --data\.root"):
        load_data(DataConfig(name="cifar10", root=str(tmp_path / "nothing.npz")))
    with pytest.raises(UserError, match=r"needs its images: give --data\.root.*--data\.download true"):
        load_data(DataConfig(name="cifar10"))
    cut = tmp_path / "cut.npz"
    cut.write_bytes(tiny_npz.read_bytes()[:-3000])
    with pytest.raises(UserError, match=r"cut\.npz cannot be read as \.npz \(is it cut short\?\)"):
        load_data(DataConfig(name="cifar10", root=str(cut)))


def test_values_out_of_range() -> None:
    with pytest.raises(UserError, match=r"data\.val_fraction must be in \[0, 1\), got 1\.5"):
        DataConfig(val_fraction=1.5)
