"""Folders of images as they come: names in capitals, what tools leave behind, transparency, one odd size among many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data import ImageData, load_data
from bnn_itrd.data.images import read_image, to_pixels
from bnn_itrd.errors import UserError


def write(folder: Path, *, n: int = 4, size: tuple[int, int] = (8, 8), classes: tuple[str, ...] = ("a", "b")) -> None:
    for grey, name in enumerate(classes, start=1):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("RGB", size, (60 * grey,) * 3).save(folder / name / f"{i}.png")


def load(root: Path, **more: object) -> ImageData:
    return load_data(DataConfig(name="folder", root=str(root), **more))  # type: ignore[arg-type]


def sizes(data: ImageData) -> tuple[int, int, int]:
    return len(data.train), 0 if data.val is None else len(data.val), len(data.test)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("Train", "Test"), (8, 0, 4)),
        (("training", "Validation"), (8, 0, 4)),  # without a folder for testing, as ever
        (("TRAIN", "testing", "valid"), (8, 6, 4)),
    ],
)
def test_a_split_by_its_folders_names(names: tuple[str, ...], found: tuple[int, int, int], tmp_path: Path) -> None:
    for name, n in zip(names, (4, 2, 3), strict=False):
        write(tmp_path / name, n=n)
    data = load(tmp_path)
    assert data.classes == ("a", "b") and sizes(data) == found


@pytest.mark.parametrize("name", ["._a.png", "overview.png"])
def test_a_picture_beside_the_classes_makes_no_class_of_the_split(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("Train", "Test"):
        write(tmp_path / split)
    Image.new("RGB", (8, 8)).save(tmp_path / "Train" / name)
    data = load(tmp_path)
    assert data.classes == ("a", "b") and sizes(data) == (8, 0, 8)
    told = f"note: images such as {tmp_path}/Train/{name} (1) are not read: they are not in the folder of a class\n"
    assert capsys.readouterr().err == ("" if name.startswith(".") else told)


def test_val_beside_test_is_held_out(tmp_path: Path) -> None:
    for name, n in (("train", 4), ("val", 3), ("test", 2)):
        write(tmp_path / name, n=n)
    data = load(tmp_path)
    assert sizes(data) == (8, 6, 4) and data.val is not None
    assert torch.equal(data.val.labels, torch.tensor([0, 0, 0, 1, 1, 1]))
    with pytest.raises(UserError, match=r"val is held out already: leave out data\.val_fraction"):
        load(tmp_path, val_fraction=0.5)
    write(tmp_path / "val", classes=("c",))
    with pytest.raises(UserError, match=r"must hold the same classes; they differ in \['c'\]"):
        load(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write(tmp_path, classes=("bus", "train"))
    assert load(tmp_path).classes == ("bus", "train")


def test_a_split_that_is_not_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "Test")
    write(tmp_path / "val")
    with pytest.raises(UserError, match="has a folder 'Test' of folders, but no folder 'train': add one"):
        load(tmp_path)
    write(tmp_path / "Train")
    write(tmp_path / "testing")
    with pytest.raises(UserError, match="two folders of the same meaning, 'Test' and 'testing'"):
        load(tmp_path)
    (tmp_path / "testing").rename(tmp_path / "extra")
    load(tmp_path)
    assert f"note: {tmp_path}/extra is not read: only Test, Train, val of {tmp_path} are\n" in capsys.readouterr().err
    write(tmp_path / "up" / "images", classes=("a", "b"))
    with pytest.raises(UserError, match=r"found one, 'images'; is \S+/up/images meant, which holds a, b\?"):
        load(tmp_path / "up")


def test_what_tools_leave_behind_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    write(tmp_path / "a", n=3, classes=(".ipynb_checkpoints", "@eaDir", "__MACOSX"))
    (tmp_path / "b" / "._0.png").write_bytes(b"Mac OS X")
    write(tmp_path / "b", n=1, classes=("deeper",))
    assert sizes(load(tmp_path)) == (7, 0, 2)  # 4 of a, 4 of b and the one that lies deeper
    assert capsys.readouterr().err == ""
    (tmp_path / "a" / "x.HEIC").write_bytes(b"")
    load(tmp_path)
    told = (
        f"note: images such as {tmp_path}/a/x.HEIC (1 in all) have a format that is not read: make them PNG or JPEG\n"
    )
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_black_icon_on_transparency_is_black_on_white(mode: str, tmp_path: Path) -> None:
    icon = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    icon.putpixel((1, 0), (0, 0, 0, 255))
    file = tmp_path / "x.png"
    if mode == "P":
        palette = Image.fromarray(np.array([[0, 1, 0]], np.uint8), "P")
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.save(file, transparency=0)
    else:
        icon.convert(mode).save(file)
    assert read_image(file).tolist() == [[[255] * 3, [0] * 3, [255] * 3]]


def test_half_transparent_and_opaque_pixels() -> None:
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 51]]], np.uint8)
    # 0.2 * 200 + 0.8 * 255, 0.2 * 100 + 0.8 * 255, 0.8 * 255
    assert to_pixels(Image.fromarray(pixels, "RGBA")).tolist() == [[[200, 100, 0], [244, 224, 204]]]
    grey = Image.new("L", (1, 1), 7)
    grey.info["transparency"] = 7
    assert to_pixels(grey).tolist() == [[[255]]]  # one channel, as before


def test_one_odd_size_among_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, n=10)
    Image.new("RGB", (9, 8)).save(tmp_path / "b" / "odd.png")
    data = load(tmp_path)
    assert data.input_shape == (3, 8, 8) and sizes(data) == (17, 0, 4)
    told = f"note: 1 of 21 images is of another size ({tmp_path}/b/odd.png) and resized to 8x8, like the others\n"
    assert capsys.readouterr().err == told
    write(tmp_path, n=5, size=(9, 9))  # now ten of 8x8, ten of 9x9, one of 9x8
    assert load(tmp_path).input_shape == (3, 224, 224)
    told = "note: the images are of 3 sizes, most of 9x9, and are enlarged to 224x224; --data.image_size sets another\n"
    assert capsys.readouterr().err == told
    assert load(tmp_path, image_size=8).input_shape == (3, 8, 8) and capsys.readouterr().err == ""
