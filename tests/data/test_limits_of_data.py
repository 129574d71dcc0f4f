"""A few bytes of data must not take the machine's memory: they are refused in words, before they are unpacked."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import bnn_itrd
from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.train import FabricConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.images import read_image, scale_whole
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.network_size import check_weights
from bnn_itrd.runs.networks import build
from bnn_itrd.runs.recorded import validation_data
from bnn_itrd.training.checkpoint import matching_state, save_checkpoint


def bomb(path: Path, side: int) -> Path:
    """A grey PNG of side x side zeros, compressed row by row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    packer, row = zlib.compressobj(9), bytes(side + 1)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    size = side.to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + b"\x08\x00\x00\x00\x00")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return path


def test_an_image_of_very_many_pixels(tmp_path: Path) -> None:
    file = bomb(tmp_path / "a.png", 12000)
    assert file.stat().st_size < 200_000
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image: it has 12000x12000 pixels, but at most"):
        read_image(file)
    assert read_image(bomb(tmp_path / "b.png", 40)).shape == (40, 40, 3)


@pytest.mark.parametrize("most", [24, 2_000_000_000, 2**62])
def test_labels_far_above_the_number_of_images(most: int, tmp_path: Path) -> None:
    images, labels = np.zeros((12, 8, 8, 3), np.uint8), np.arange(12) % 3
    labels[3] = most
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=np.arange(12) % 3)
    with pytest.raises(
        UserError, match=rf"a\.npz: no image has the label 3, but some have {most}: labels count from 0"
    ):
        load_data(DataConfig(name="cifar10", root=str(tmp_path / "a.npz")))
    own = TensorDataset(torch.zeros(12, 3, 8, 8), torch.from_numpy(labels))
    with pytest.raises(UserError, match=f"no image has the label 3, but some have {most}"):
        ImageData.from_datasets(own)


def test_images_brought_to_more_than_the_memory_holds() -> None:
    images = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match=r"data\.image_size 1000000: 1 images of 1000000x1000000 take 11,176 GiB"):
        scale_whole(images, 1_000_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(image_size=10**6), r"data.image_size must be in \[1, 4096\], got 1000000"),
        (lambda: DataConfig(crop_padding=10**6), r"data.crop_padding must be in \[0, 4096\]"),
        (lambda: DataConfig(workers=10**6), r"data.workers must be in \[0, 1024\]"),
        (lambda: NetworkConfig(width=1e6), r"network.width must be in \(0, 64\], got 1000000.0"),
        (lambda: NetworkConfig(width=float("nan")), r"network.width must be in \(0, 64\], got nan"),
        (lambda: TrainConfig(epochs=10**23), "train.epochs must be <= 1000000, got 10{23}"),
        (lambda: FabricConfig(devices=10**6), "fabric.devices must be <= 4096"),
        (lambda: FabricConfig(threads=10**9), "fabric.threads must be <= 4096"),
    ],
)
def test_fields_have_upper_limits(make: type, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_crops_that_may_hold_nothing_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch of such crops are all the same; BatchNorms divide by next to nothing, and the weights become NaN."""
    message = (
        "data.crop_padding 2 is too much for images of {0}x{0}: a crop may contain nothing of one. Give less than {0} "
        "(--data.crop_padding {1}), or larger images (--data.image_size)"
    )
    for size in (1, 2):
        with pytest.raises(UserError, match=re.escape(message.format(size, size - 1))):
            load_data(DataConfig(name="digits", image_size=size, crop_padding=2)).check_crops()
    for size, padding in ((1, 0), (3, 2)):
        load_data(DataConfig(name="digits", image_size=size, crop_padding=padding)).check_crops()
    # before anything is trained or written
    for command in (["run"], ["train", "--member=recu"], ["sweep", "--methods", "kd"]):
        assert main([command[0], "digits", *command[1:], "--data.image_size=1", f"--out={tmp_path / 'out'}"]) == 2
        assert message.format(1, 0) in capsys.readouterr().err
    images = torch.zeros(12, 3, 1, 1, dtype=torch.uint8)
    data = ImageData.from_datasets(TensorDataset(images, torch.arange(12) % 3), crop_padding=2)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 3))
    with pytest.raises(UserError, match=re.escape(message.format(1, 0))):
        bnn_itrd.distill(network, None, data, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_of_too_many_weights_is_not_made() -> None:
    shape = (3, 32, 32)
    with pytest.raises(UserError, match=r"network.width 64 of resnet18 makes [\d,]+ weights for images of 32x32, but"):
        build(NetworkConfig("resnet18", width=64), None, num_classes=10, input_shape=shape)
    before = torch.get_rng_state()
    check_weights(lambda: torch.nn.Linear(8, 8), name="mine", width=3, input_shape=shape)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 1e6, r"last\.pt: network.width must be in \(0, 64\], got 1000000.0"),
        ("width", 60.0, "network.width 60 of resnet20 makes"),
        ("input_shape", [3, 10**6, 10**6], r"last\.pt: input_shape must be three whole numbers from 1 to 4096, got"),
        ("input_shape", "abc", r"last\.pt: input_shape must be three whole numbers"),
        ("input_shape", [3, True, 8.0], r"last\.pt: input_shape must be three whole numbers"),
        ("classes", 10**9, r"last\.pt: classes must be a list of names, got 1000000000"),
        ("model", 3, r"last\.pt is not a checkpoint of a network of bnn-itrd"),
        ("model", {"conv.weight": 3}, r"last\.pt is not a checkpoint of a network of bnn-itrd"),
        ("identity", 3, r"last\.pt is not a checkpoint of a network of bnn-itrd"),
    ],
)
def test_limits_hold_inside_a_checkpoint(field: str, value: object, message: str, tmp_path: Path) -> None:
    name = "resnet18" if value == 60.0 else "resnet20"
    identity: dict = {
        "network": {"name": name, "width": 0.25}, "scheme": None, "input_shape": [3, 8, 8], "classes": ["a", "b"],
    }  # fmt: skip
    state: dict = {"identity": identity, "model": {}}
    place = state if field in state else identity["network"] if field == "width" else identity
    place[field] = value
    save_checkpoint(tmp_path / "last.pt", state)
    with pytest.raises(UserError, match=message.replace("resnet20", name)):
        load_member(tmp_path)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": 3}, "does not say how its network is made"),
        ("resnet20", "does not say how its network is made: its `network` is 'resnet20'"),
        ({"name": "resnet20", "scheme": {"a": 1}}, "was written by another version of bnn-itrd"),
    ],
)
def test_a_network_in_a_checkpoint_that_is_none(network: object, message: str, tmp_path: Path) -> None:
    identity = {"network": network, "scheme": None, "input_shape": [3, 8, 8], "classes": ["a"]}
    save_checkpoint(tmp_path / "last.pt", {"identity": identity, "model": {}})
    with pytest.raises(UserError, match=message):
        load_member(tmp_path)


@pytest.mark.parametrize("changed", [{"identity": 3}, {"objective": None}, {"epoch": "two"}])
def test_a_training_in_a_checkpoint_that_is_none(changed: dict, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", {"identity": {}, "objective": {}, "epoch": 1, **changed})
    with pytest.raises(UserError, match="last.pt is not the checkpoint of a training: choose another --out"):
        matching_state(tmp_path / "last.pt", {})


@pytest.mark.parametrize(
    ("data", "message"),
    [(3, "the run's `data` must be a mapping of fields, got '3'"), ({"image_size": "x"}, "a value of a wrong type")],
)
def test_the_data_of_a_run_that_is_none(data: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        validation_data({}, {"data": data}, {"name": "digits"})


@pytest.mark.parametrize("key", ["x_train", "y_test", "classes"])
def test_a_part_of_an_archive_that_is_no_array(key: str, tiny_npz: Path, tmp_path: Path) -> None:
    """NumPy gives the bytes of a part that does not begin as an array does."""
    changed = tmp_path / "changed.npz"
    with zipfile.ZipFile(tiny_npz) as good, zipfile.ZipFile(changed, "w") as other:
        for name in good.namelist():
            data = good.read(name)
            other.writestr(name, b"x" + data[1:] if name == f"{key}.npy" else data)
    with pytest.raises(UserError, match=f"changed.npz: {key} in it is not a NumPy array"):
        load_data(DataConfig(name="cifar10", root=str(changed)))
