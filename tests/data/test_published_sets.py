"""Data: the embedded set, files and folders, augmentation, hold-out, the order of an epoch, bad files by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.augment import crop_and_flip, draw, normalise
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.files.folder_split import FolderSplit
from bnn_itrd.data.images import channel_statistics, read_image
from bnn_itrd.data.seeds import shuffled
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError

CPU = torch.device("cpu")


def test_digits_is_embedded_and_split_by_class() -> None:
    data = load_data(DataConfig())
    assert data.input_shape == (1, 8, 8) and data.classes == tuple("0123456789")
    assert len(data.train) + len(data.test) == 1797
    counts = torch.bincount(data.test.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    images, _, _ = next(data.test.eval_batches(400, device=CPU))
    train = torch.cat([b[0] for b in data.train.eval_batches(400, device=CPU)])
    torch.testing.assert_close(train.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert images.shape[1:] == (1, 8, 8)


def test_statistics_equal_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 4, 2), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean.numpy(), (images / 255).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), (images / 255).std((0, 1, 2)), rtol=1e-6)
    assert channel_statistics(np.zeros((2, 3, 3, 1), np.uint8))[1] > 0


def test_download_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    asked = []

    class Fake(torchvision.datasets.CIFAR10):
        def __init__(self, root: Path, train: bool, download: bool) -> None:
            asked.append((str(root), download))
            raise RuntimeError("no network here")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    with pytest.raises(UserError, match="no network here"):
        load_data(DataConfig(name="cifar10", download=True))
    assert asked == [("data", True)]


def test_image_size_scales_small_images() -> None:
    data = load_data(DataConfig(image_size=16))
    assert data.input_shape == (1, 16, 16)
    assert data.test.raw(0).shape == (16, 16, 1)


def test_crop_and_flip_equals_a_loop() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 255, (9, 3, 6, 5), dtype=torch.uint8)
    choice = draw(9, padding=2, flip=True, generator=torch.Generator().manual_seed(1))
    assert choice[:, :2].max() <= 4 and set(choice[:, 2].tolist()) == {0, 1}
    result = crop_and_flip(images, choice, padding=2)
    for image, (top, left, mirrored), got in zip(images, choice.tolist(), result, strict=True):
        padded = np.zeros((3, 10, 9), np.uint8)
        padded[:, 2:8, 2:7] = image.numpy()
        cropped = padded[:, top : top + 6, left : left + 5]
        expected = cropped[:, :, ::-1] if mirrored else cropped
        assert np.array_equal(got.numpy(), expected)


def test_no_padding_no_flip_changes_nothing() -> None:
    images = torch.randint(0, 255, (4, 1, 5, 5), dtype=torch.uint8)
    choice = draw(4, padding=0, flip=False, generator=torch.Generator())
    assert torch.equal(crop_and_flip(images, choice, padding=0), images)


def test_normalise() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.1])
    expected = torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]])
    torch.testing.assert_close(normalise(images, mean, std), expected, atol=1e-6, rtol=0)


def test_an_epoch_is_a_function_of_seed_and_epoch(tiny_npz: Path) -> None:
    def epoch(seed: int, number: int, rank: int = 0, world: int = 1) -> list[tuple[torch.Tensor, ...]]:
        data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
        return list(data.train.train_batches(32, seed=seed, epoch=number, device=CPU, rank=rank, world=world))

    one, again, other = epoch(0, 3), epoch(0, 3), epoch(0, 4)
    assert all(torch.equal(a, b) for x, y in zip(one, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(one[0][2], other[0][2])
    assert sorted(torch.cat([b[2] for b in one]).tolist()) == list(range(96))
    # two processes see, together, the batch of one
    halves = [epoch(0, 3, rank, 2) for rank in (0, 1)]
    for whole, first, second in zip(one, *halves, strict=True):
        assert torch.equal(whole[2], torch.stack([first[2], second[2]], 1).flatten())
        assert torch.equal(whole[0], torch.stack([first[0], second[0]], 1).flatten(0, 1))
        assert len(first[2]) == 16


def test_indices_point_at_the_images(tiny_npz: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz), crop_padding=0, flip=False))
    images, labels, index = next(data.train.train_batches(16, seed=0, epoch=0, device=CPU))
    assert isinstance(data.train, TensorSplit)
    torch.testing.assert_close(images, normalise(data.train.images[index], data.train.mean, data.train.std))
    assert torch.equal(labels, data.train.labels[index])


def test_order_differs_by_seed() -> None:
    assert not torch.equal(shuffled(50, seed=0, epoch=0), shuffled(50, seed=1, epoch=0))


def test_held_out_images_leave_training_and_do_not_depend_on_the_seed(tiny_npz: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz), val_fraction=0.25))
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (72, 24, 48)
    assert torch.bincount(data.val.labels).tolist() == [8, 8, 8]
    assert isinstance(data.train, TensorSplit) and isinstance(data.val, TensorSplit)
    seen = {bytes(i.numpy().tobytes()) for i in data.train.images}
    assert not seen & {bytes(i.numpy().tobytes()) for i in data.val.images}


def test_torchvision_layout(tmp_path: Path) -> None:
    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    with pytest.raises(UserError, match="does not hold a whole cifar10 in torchvision's layout"):
        load_data(DataConfig(name="cifar10", root=str(tmp_path)))
    rng = np.random.default_rng(0)
    from torchvision.datasets import CIFAR10

    class Loose(CIFAR10):
        def _check_integrity(self) -> bool:
            return True

    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        rows = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    import torchvision.datasets as sets

    original = sets.CIFAR10
    try:
        sets.CIFAR10 = Loose  # the real files' checksums are torchvision's business
        import torchvision.datasets.cifar as module

        check, module.check_integrity = module.check_integrity, lambda *a, **k: True
        data = load_data(DataConfig(name="cifar10", root=str(tmp_path)))
        module.check_integrity = check
    finally:
        sets.CIFAR10 = original
    assert (len(data.train), len(data.test)) == (50, 10) and data.classes[3] == "c3"


# ---- a user's own images


def write_images(root: Path, *, size: tuple[int, int] = (20, 20), n: int = 5, classes: int = 2) -> Path:
    rng = np.random.default_rng(0)
    for c in range(classes):
        (root / f"kind{c}").mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"kind{c}" / f"{i}.png")
    return root


def folder(root: Path, **more: object) -> ImageData:
    return load_data(DataConfig(name="folder", root=str(root), **more))  # type: ignore[arg-type]


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
    with pytest.raises(UserError, match=r"f\.tif cannot be read as an image: its pixels are of Pillow's mode F"):
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


# ---- published sets, as they are unpacked


def save(path: Path, *, side: int = 70, value: int = 128) -> None:
    """An image of one grey, with a white frame of an eighth of its side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), 255, np.uint8)
    edge = side // 8
    pixels[edge:-edge, edge:-edge] = value
    Image.fromarray(pixels).save(path, quality=95)


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


def write_imagenet(root: Path) -> None:
    for c, name in enumerate(("n01440764", "n01443537")):
        for i in range(4):
            save(root / "train" / name / f"{name}_{i}.JPEG", value=50 * c)
        save(root / "val" / name / "ILSVRC2012_val_00000001.JPEG")
    save(root / "test" / "ILSVRC2012_test_00000001.JPEG")


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


def published(name: str, root: Path, **more: object) -> ImageData:
    return load_data(DataConfig(name=name, root=str(root), workers=0, **more))  # type: ignore[arg-type]


def files(split: object) -> list[str]:
    assert isinstance(split, FolderSplit)
    return [path.name for path in split.paths]


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


# ---- few images of each class


def few(root: Path, **more: object) -> ImageData:
    return load_data(DataConfig(name="cifar10", root=str(root), **more))  # type: ignore[arg-type]


def pictures(split: object) -> set[bytes]:
    assert isinstance(split, TensorSplit)
    return {image.numpy().tobytes() for image in split.images}


def test_per_class_takes_so_many_of_each(tiny_npz: Path) -> None:
    everything = few(tiny_npz)
    five, again, eight = few(tiny_npz, per_class=5), few(tiny_npz, per_class=5), few(tiny_npz, per_class=8)
    assert torch.bincount(five.train.labels).tolist() == [5, 5, 5] and len(five.test) == len(everything.test) == 48
    assert isinstance(five.train, TensorSplit) and isinstance(again.train, TensorSplit)
    assert torch.equal(five.train.images, again.train.images)
    assert pictures(five.train) < pictures(eight.train) < pictures(everything.train)
    assert pictures(few(tiny_npz, per_class=5, per_class_seed=1).train) != pictures(five.train)
    # every one has its own label, and the statistics are those of the images that are trained on
    labels = {
        i.numpy().tobytes(): int(y) for i, y in zip(everything.train.images, everything.train.labels, strict=True)
    }
    assert all(labels[i.numpy().tobytes()] == int(y) for i, y in zip(five.train.images, five.train.labels, strict=True))
    expected = five.train.images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(torch.tensor(five.mean).double(), expected, atol=1e-6, rtol=0)
    assert pictures(few(tiny_npz, per_class=32).train) == pictures(everything.train)


def test_per_class_leaves_the_held_out_images_alone(tiny_npz: Path) -> None:
    whole, part = few(tiny_npz, val_fraction=0.25), few(tiny_npz, val_fraction=0.25, per_class=7)
    assert pictures(part.val) == pictures(whole.val) and len(part.train) == 21
    assert pictures(part.train) < pictures(whole.train) and not pictures(part.train) & pictures(part.val)


def test_per_class_of_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "small")
    data = folder(tmp_path / "small", per_class=2)
    assert torch.bincount(data.train.labels).tolist() == [2, 2] and len(data.test) == 2
    write_imagenet(tmp_path / "large")
    large = published("imagenet", tmp_path / "large", per_class=3)
    assert files(large.train) == sorted(files(large.train)) and torch.bincount(large.train.labels).tolist() == [3, 3]


def test_per_class_of_more_than_there_are(tmp_path: Path, tiny_npz: Path) -> None:
    write_images(tmp_path / "train", n=6)
    (tmp_path / "train" / "kind1" / "0.png").unlink()
    write_images(tmp_path / "test", n=1)
    with pytest.raises(
        UserError, match=r"data\.per_class must be at most 5, the training images of class 'kind1', got 6"
    ):
        folder(tmp_path, per_class=6)
    held = r"at most 24, the training images of class 'class0' \(data\.val_fraction 0\.25 is held out\), got 25"
    with pytest.raises(UserError, match=held):
        few(tiny_npz, per_class=25, val_fraction=0.25)
    with pytest.raises(UserError, match=r"data\.per_class must be >= 1, got 0"):
        DataConfig(per_class=0)
    with pytest.raises(UserError, match=r"data\.per_class_seed must be in \[0, 2\^31\), got -1"):
        DataConfig(per_class_seed=-1)


# ---- bad files


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


def test_unlabelled_images_are_the_rest(tiny_npz: Path) -> None:
    fraction = {"val_fraction": 0.25, "per_class": 7, "per_class_seed": 3}
    everything, part = few(tiny_npz, val_fraction=0.25), few(tiny_npz, **fraction)
    mixed = few(tiny_npz, **fraction, unlabelled=True)
    assert isinstance(mixed.train, TensorSplit) and isinstance(everything.train, TensorSplit)
    assert torch.equal(mixed.train.images, everything.train.images) and mixed.mean == everything.mean
    labelled = mixed.train.labels != UNLABELLED
    assert torch.bincount(mixed.train.labels[labelled]).tolist() == [7, 7, 7]
    assert torch.equal(mixed.train.labels[labelled], everything.train.labels[labelled])
    # the labelled ones are those that per_class takes by itself; nothing else is changed
    assert {i.numpy().tobytes() for i in mixed.train.images[labelled]} == pictures(part.train)
    assert mixed.val is not None and everything.val is not None
    for a, b in ((mixed.val, everything.val), (mixed.test, everything.test)):
        assert torch.equal(a.labels, b.labels)


def test_unlabelled_images_in_files(tmp_path: Path) -> None:
    write_imagenet(tmp_path / "large")
    data = published("imagenet", tmp_path / "large", per_class=3, unlabelled=True)
    everything, part = (published("imagenet", tmp_path / "large", **more) for more in ({}, {"per_class": 3}))
    assert files(data.train) == files(everything.train) and isinstance(data.train, FolderSplit)
    labelled = [file for file, y in zip(files(data.train), data.train.labels, strict=True) if y != UNLABELLED]
    assert labelled == files(part.train)
    batch = next(data.train.train_batches(len(data.train), seed=0, epoch=0, device=CPU))
    assert torch.equal(batch[1], data.train.labels[batch[2]])


def test_bad_choices_of_images(tiny_npz: Path) -> None:
    with pytest.raises(UserError, match=r"data\.unlabelled must be false without data\.per_class.*, got True"):
        DataConfig(unlabelled=True)
    with pytest.raises(UserError, match=r"data\.per_class must be at most 32"):
        few(tiny_npz, per_class=33, unlabelled=True)
    with pytest.raises(UserError, match=r"data\.val_fraction 0\.01 of the 96 training images holds out none"):
        few(tiny_npz, val_fraction=0.01)
