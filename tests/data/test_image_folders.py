"""A user's own folders of images: small and large ones, of every mode, unreadable and truncated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_sets import CPU, folder, write_images
from PIL import Image

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.files.folder_split import FolderSplit
from bnn_itrd.data.images import read_image
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError


def test_small_images_are_held_in_memory(tmp_path: Path) -> None:
    data = folder(write_images(tmp_path))
    assert isinstance(data.train, TensorSplit) and data.input_shape == (3, 20, 20)
    assert (len(data.train), len(data.test)) == (8, 2)  # a fifth of each class is for testing
    assert data.classes == ("kind0", "kind1")


@pytest.mark.parametrize("workers", [0, 2])
def test_large_images_are_read_and_do_not_depend_on_workers(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path / "train", size=(90, 70))
    write_images(tmp_path / "test", size=(90, 70), n=3)
    data = folder(tmp_path, workers=workers, image_size=80)
    assert isinstance(data.train, FolderSplit) and data.input_shape == (3, 80, 80)
    alone = folder(tmp_path, workers=0, image_size=80)
    for got, expected in zip(
        data.train.train_batches(4, seed=1, epoch=2, device=CPU),
        alone.train.train_batches(4, seed=1, epoch=2, device=CPU),
        strict=True,
    ):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        assert got[0].shape == (4, 3, 80, 80)
    images, labels, index = next(data.test.eval_batches(10, device=CPU))
    assert images.shape == (6, 3, 80, 80) and labels.tolist() == [0, 0, 0, 1, 1, 1] and index.tolist() == list(range(6))


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "kind1" / "broken.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(UserError, match=r"kind1/broken\.png cannot be read as an image"):
        folder(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_grey_bits_become_eight(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 12850], [25700, 51400, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep{suffix}")
    got = read_image(tmp_path / f"deep{suffix}")
    assert got.dtype == np.uint8
    for channel in range(3):
        assert got[..., channel].tolist() == [[0, 1, 50], [100, 200, 255]]


def test_pixels_of_no_known_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match=r"f\.tif cannot be read as an image: its pixels have neither 8 nor 16 bits"):
        read_image(tmp_path / "f.tif")


def test_grey_palette_transparent_and_printed_images_are_rgb(tmp_path: Path) -> None:
    orange = Image.new("RGB", (2, 2), (255, 153, 0))
    for mode in ("P", "RGBA", "CMYK"):
        orange.convert(mode).save(tmp_path / "x.tif")
        assert read_image(tmp_path / "x.tif")[1, 1].tolist() == pytest.approx([255, 153, 0], abs=2), mode
    orange.convert("L").save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[1, 1].tolist() == [166] * 3


def test_large_images_under_a_networks_own_statistics(tmp_path: Path) -> None:
    data = folder(write_images(tmp_path, size=(90, 90)), workers=0, image_size=80)
    known = next(data.test.eval_batches(4, device=CPU))[0]
    pixels = known * torch.tensor(data.std).reshape(3, 1, 1) + torch.tensor(data.mean).reshape(3, 1, 1)
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    data = data.normalised_with(mean, std)
    expected = (pixels - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    assert torch.allclose(next(data.test.eval_batches(4, device=CPU))[0], expected, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_is_named_when_it_is_read(tmp_path: Path, workers: int) -> None:
    write_images(tmp_path, size=(90, 90))
    victim = sorted((tmp_path / "kind0").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:2000])
    data = folder(tmp_path, workers=workers, image_size=80)
    with pytest.raises(UserError, match=r"^\S*kind0/0\.png cannot be read as an image"):
        for split in (data.train, data.test):
            list(split.eval_batches(4, device=CPU))


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs --data\.root"):
        load_data(DataConfig(name="folder"))
    one = tmp_path / "one"
    write_images(one, classes=1)
    with pytest.raises(UserError, match="at least two folders.*found one, 'kind0'"):
        folder(one)
    (one / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no image"):
        folder(one)
    odd = tmp_path / "odd"
    write_images(odd / "train")
    with pytest.raises(UserError, match="neither 'test' nor 'val'"):
        folder(odd)
    write_images(odd / "test", classes=3)
    with pytest.raises(UserError, match=r"same classes; they differ in \['kind2'\]"):
        folder(odd)
