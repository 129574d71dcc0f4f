"""Published data sets as they are unpacked: what is read of them, and another layout is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.data_sets import CPU, files, published, save, write_imagenet

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError


def write_stl10(root: Path) -> np.ndarray:
    """Two classes; returns the training images (n, h, w, c)."""
    folder = root / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(0)
    kept = {}
    for split, labels in (("train", [2, 1, 2, 1]), ("test", [1, 1, 2])):
        kept[split] = images = rng.integers(0, 256, (len(labels), 96, 96, 3), dtype=np.uint8)
        # Coates et al.: per image the red, green and blue values, each column by column
        rows = [image[:, column, channel] for image in images for channel in range(3) for column in range(96)]
        np.concatenate(rows).tofile(folder / f"{split}_X.bin")
        np.array(labels, np.uint8).tofile(folder / f"{split}_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    return kept["train"]


def write_tiny_imagenet(root: Path) -> None:
    """Three training images in each of two classes, two for testing, in the order n02, n01."""
    base = root / "tiny-imagenet-200"
    for c, name in enumerate(("n02", "n01")):
        for i in range(3):
            save(base / "train" / name / "images" / f"{name}_{i}.JPEG", side=64, value=20 * (c + 1))
        (base / "train" / name / f"{name}_boxes.txt").write_text("n02_0.JPEG\t0\t0\t62\t62\n")
        save(base / "val" / "images" / f"val_{c}.JPEG", side=64, value=100)
    (base / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t62\t62\nval_1.JPEG\tn01\t1\t1\t5\t5\n")
    save(base / "test" / "images" / "test_0.JPEG", side=64)


def write_mit67(root: Path) -> None:
    for name in ("bar", "airport_inside"):
        for i in range(3):
            save(root / "Images" / name / f"a picture {i}.jpg")
    (root / "TrainImages.txt").write_text("bar/a picture 0.jpg\nairport_inside/a picture 1.jpg\nbar/a picture 2.jpg\n")
    (root / "TestImages.txt").write_text("bar/a picture 1.jpg\nairport_inside/a picture 0.jpg\n")


def write_cub200(root: Path) -> None:
    base = root / "CUB_200_2011"
    names = ["001.Albatross/x_1.jpg", "001.Albatross/x_2.jpg", "002.Auklet/y_1.jpg", "002.Auklet/y_2.jpg"]
    for name in names:
        save(base / "images" / name)
    lines = {
        "images": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "classes": ["1 001.Albatross", "2 002.Auklet"],
        "image_class_labels": ["1 1", "2 1", "3 2", "4 2"],
        "train_test_split": ["1 0", "2 1", "3 1", "4 1"],
    }
    for name, rows in lines.items():
        (base / f"{name}.txt").write_text("\n".join(rows) + "\n")


WRITERS: dict[str, Callable[[Path], object]] = {
    "stl10": write_stl10,
    "tiny-imagenet": write_tiny_imagenet,
    "imagenet": write_imagenet,
    "mit67": write_mit67,
    "cub200": write_cub200,
}


def test_stl10(tmp_path: Path) -> None:
    images = write_stl10(tmp_path)
    data = published("stl10", tmp_path)
    assert (data.name, data.classes, data.input_shape) == ("stl10", ("airplane", "bird"), (3, 96, 96))
    assert data.train.labels.tolist() == [1, 0, 1, 0] and data.test.labels.tolist() == [0, 0, 1]
    for i, image in enumerate(images):
        assert np.array_equal(data.train.raw(i), image)
    assert published("stl10", tmp_path / "stl10_binary", image_size=32).input_shape == (3, 32, 32)


def test_stl10_is_fetched_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    asked = []

    def fake(root: Path, split: str, download: bool) -> None:
        asked.append((Path(root), split, download))
        write_stl10(Path(root))

    monkeypatch.setattr(torchvision.datasets, "STL10", fake)
    assert len(published("stl10", tmp_path, download=True).train) == 4
    assert asked == [(tmp_path, "train", True)]

    def broken(root: Path, split: str, download: bool) -> None:
        raise RuntimeError("no network here")

    monkeypatch.setattr(torchvision.datasets, "STL10", broken)
    with pytest.raises(UserError, match="could not be fetched into .*no network here"):
        published("stl10", tmp_path, download=True)


def test_tiny_imagenet(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path)
    data = published("tiny-imagenet", tmp_path)
    assert (data.classes, data.input_shape, len(data.train)) == (("n01", "n02"), (3, 64, 64), 6)
    assert isinstance(data.train, TensorSplit)  # in memory, where crops and mirrors are drawn
    assert data.test.labels.tolist() == [1, 0]  # the annotations', not the folders' order
    by_class = {int(label): int(data.train.raw(i)[32, 32, 0]) for i, label in enumerate(data.train.labels)}
    assert abs(by_class[0] - 40) < 4 and abs(by_class[1] - 20) < 4
    small = published("tiny-imagenet", tmp_path / "tiny-imagenet-200", image_size=32)
    assert small.input_shape == (3, 32, 32) and small.resize == "scale"
    assert small.train.raw(0)[1, 16, 0] > 200  # scaled whole: the frame is still there


def test_imagenet_is_tested_on_its_validation_images(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    data = published("imagenet", tmp_path, val_fraction=0.25)
    assert (data.classes, data.input_shape) == (("n01440764", "n01443537"), (3, 224, 224))
    assert data.val is not None and (len(data.train), len(data.val), len(data.test)) == (6, 2, 2)
    assert files(data.test) == ["ILSVRC2012_val_00000001.JPEG"] * 2
    assert data.mean == (0.485, 0.456, 0.406) and data.resize == "centre"
    images, labels, _ = next(data.train.train_batches(2, seed=0, epoch=0, device=CPU))
    assert images.shape == (2, 3, 224, 224) and labels.shape == (2,)
    assert published("imagenet", tmp_path, image_size=160).input_shape == (3, 160, 160)


def test_mit67_follows_its_lists(tmp_path: Path) -> None:
    write_mit67(tmp_path)
    data = published("mit67", tmp_path)
    assert data.classes == ("airport_inside", "bar") and data.input_shape == (3, 224, 224)
    assert files(data.train) == ["a picture 0.jpg", "a picture 1.jpg", "a picture 2.jpg"]
    assert data.train.labels.tolist() == [1, 0, 1] and data.test.labels.tolist() == [1, 0]


def test_cub200_follows_its_tables(tmp_path: Path) -> None:
    write_cub200(tmp_path)
    for root in (tmp_path, tmp_path / "CUB_200_2011"):
        data = published("cub200", root)
        assert data.classes == ("001.Albatross", "002.Auklet")
        assert files(data.train) == ["x_2.jpg", "y_1.jpg", "y_2.jpg"] and files(data.test) == ["x_1.jpg"]
        assert data.train.labels.tolist() == [0, 1, 1] and data.test.labels.tolist() == [0]


def replace_text(file: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / file).write_text((root / file).read_text().replace(old, new))


def remove(file: str) -> Callable[[Path], object]:
    return lambda root: (root / file).unlink()


def flat_validation(root: Path) -> None:
    for image in (root / "val").rglob("*.JPEG"):
        image.rename(root / "val" / f"{image.parent.name}.JPEG")
    for name in ("n01440764", "n01443537"):
        (root / "val" / name).rmdir()


CUB, TINY, STL = "CUB_200_2011", "tiny-imagenet-200", "stl10_binary"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("stl10", remove(f"{STL}/test_y.bin"), r"no file \S*test_y\.bin: give --data\.root the folder stl10_binary"),
        (
            "stl10",
            lambda root: (root / STL / "train_X.bin").write_bytes(bytes(27_649)),
            r"train_X\.bin must hold whole images of 27648 bytes, got 27649 bytes",
        ),
        (
            "stl10",
            lambda root: (root / STL / "train_y.bin").write_bytes(bytes([1, 2, 3, 1])),
            r"train_y\.bin must hold 4 labels from 1 to 2, .* got 4 from 1 to 3",
        ),
        (
            "stl10",
            lambda root: (root / STL / "test_y.bin").write_bytes(bytes([1, 2])),
            r"test_y\.bin must hold 3 labels from 1 to 2, .* got 2",
        ),
        (
            "tiny-imagenet",
            remove(f"{TINY}/val/val_annotations.txt"),
            r"no \S*val_annotations\.txt: data set 'tiny-imagenet' needs a folder with train/WNID/images/\*\.JPEG",
        ),
        (
            "tiny-imagenet",
            replace_text(f"{TINY}/val/val_annotations.txt", "n01", "n77"),
            r"val_annotations\.txt names the class 'n77', which has no training image",
        ),
        (
            "tiny-imagenet",
            replace_text(f"{TINY}/val/val_annotations.txt", "val_1.JPEG", "val_9.JPEG"),
            r"no file \S*images/val_9\.JPEG, which is listed in \S*val_annotations\.txt",
        ),
        (
            "tiny-imagenet",
            lambda root: (root / TINY / "val" / "val_annotations.txt").write_text("val_0.JPEG n02\n"),
            r"val_annotations\.txt, line 1: expected 2 columns, got 'val_0\.JPEG n02'",
        ),
        (
            "imagenet",
            lambda root: (root / "val").rename(root / "valid"),
            r"no \S*/val: .* needs a folder with train/CL",
        ),
        (
            "imagenet",
            flat_validation,
            r"\S*/val must hold at least two folders of images, one for each class; found none",
        ),
        (
            "imagenet",
            lambda root: save(root / "val" / "n9" / "1.JPEG"),
            r"same classes; they differ in \['n9'\]",
        ),
        (
            "mit67",
            remove("TestImages.txt"),
            r"no \S*TestImages\.txt: data set 'mit67' needs a folder with Images/CLASS",
        ),
        (
            "mit67",
            replace_text("TestImages.txt", "bar/", "attic/"),
            r"TestImages\.txt names the class 'attic', which has no training image",
        ),
        (
            "mit67",
            lambda root: (root / "TrainImages.txt").write_text("a picture 0.jpg\n"),
            r"TrainImages\.txt must list images as CLASS/NAME, got 'a picture 0\.jpg'",
        ),
        (
            "mit67",
            lambda root: (root / "TrainImages.txt").write_text("\n"),
            "must list images as CLASS/NAME, got 'nothing'",
        ),
        (
            "mit67",
            replace_text("TestImages.txt", "picture 1", "picture 9"),
            r"no file \S*Images/bar/a picture 9\.jpg, which is listed in \S*TestImages\.txt",
        ),
        (
            "cub200",
            remove(f"{CUB}/classes.txt"),
            r"no \S*classes\.txt: .* needs a folder with images/CLASS/\*\.jpg, im",
        ),
        (
            "cub200",
            replace_text(f"{CUB}/train_test_split.txt", "4 1\n", ""),
            r"train_test_split\.txt and \S*images\.txt must number the same images; 4 is in one",
        ),
        ("cub200", replace_text(f"{CUB}/train_test_split.txt", "4 1", "4 2"), "image 4 must have 0 or 1, got '2'"),
        ("cub200", replace_text(f"{CUB}/train_test_split.txt", "1 0", "1 1"), "marks no image with 0"),
        (
            "cub200",
            replace_text(f"{CUB}/image_class_labels.txt", "3 2", "3 7"),
            r"image_class_labels\.txt: image 3 has class 7, which classes\.txt does not name",
        ),
        (
            "cub200",
            remove(f"{CUB}/images/002.Auklet/y_2.jpg"),
            r"no file \S*y_2\.jpg, which is listed in \S*images\.txt",
        ),
    ],
)
def test_another_layout_is_named(tmp_path: Path, name: str, damage: Callable[[Path], object], message: str) -> None:
    WRITERS[name](tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        published(name, tmp_path)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_published_sets_need_a_root(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"data set '{name}' needs .*--data\.root"):
        load_data(DataConfig(name=name))
    with pytest.raises(UserError, match="stl10_binary|needs --data.root"):
        published(name, tmp_path / "nothing")
