"""`run folder` on small photos: the image size and the epochs that nobody gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from bnn_itrd.cli import main
from bnn_itrd.cli.recipe import recipe_config
from bnn_itrd.config.run import RunConfig
from bnn_itrd.data.files.photo_sizes import fitting_size
from bnn_itrd.errors import UserError
from bnn_itrd.experiments import grid


def photos(root: Path, sizes: list[tuple[int, int]]) -> Path:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i, size in enumerate(sizes):
            Image.new("RGB", size).save(root / name / f"{i}.bmp")
    return root


def read(root: Path, out: Path, *words: str, recipe: str = "folder") -> RunConfig:
    given = [recipe, f"--data.root={root}", f"--out={out}", "--fabric.accelerator=cpu", *words]
    return recipe_config("run", "", given, {"out": ""})[1]


def lengths(config: RunConfig) -> tuple[int | None, int, int]:
    return config.data.image_size, config.teacher_train.epochs, config.train.epochs


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(40, 52), (52, 40), (64, 60)], (40, 40)),
        ([(4000, 3000)] * 20, (64, 3000)),
        ([(63, 70)] * 2, (56, 63)),
        ([(9, 12)] * 3, (16, 9)),
        ([(50, 80)] * 18 + [(10, 10)], (48, 50)),  # fewer than a tenth are smaller
        ([(28, 28)] * 9 + [(30, 40)], None),
        ([], None),
    ],
)
def test_the_rule(sizes: list[tuple[int, int]], expected: tuple[int, int] | None) -> None:
    assert fitting_size(sizes) == expected


def test_a_wrong_folder_comes_before_sizes_and_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path / "photos", [(40, 52)] * 3)
    for path in (root / "b").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"photos/b holds no image"):
        read(root, tmp_path / "out")
    with pytest.raises(UserError, match="must hold at least two folders of images, one for each class; found none"):
        read(root / "a", tmp_path / "out")
    assert capsys.readouterr().out == ""


def test_a_sweep_has_the_same_size_and_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, made = photos(tmp_path / "photos", [(40, 52), (64, 48)] * 5), list[RunConfig]()

    class Ended(Exception):
        pass

    def points(*words: str) -> list[tuple[int | None, int, int]]:
        def stop(recipe: Any, students: Any, axes: Any, argv: Any, **more: Any) -> Any:
            made.extend(grid.run_config("sweep", "", recipe, [*argv, *w], extra={})[0] for w in ([], ["--train.lr=1"]))
            raise Ended

        monkeypatch.setattr(grid, "make_points", stop)
        with pytest.raises(Ended):
            main(["sweep", "folder", f"--data.root={root}", "--methods=kd", "--fabric.accelerator=cpu", *words])
        return [lengths(config) for config in made]

    assert points() == [(40, 60, 90)] * 2
    assert "image size: 40, the largest multiple of 8" in capsys.readouterr().out
    made.clear()
    assert points("--grid", "data.image_size=16,24", "train.epochs=1,2") == [(None, 60, 90)] * 2
    assert "train.epochs 60," in capsys.readouterr().out


def test_few_photos_and_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = photos(tmp_path / "few", [(40, 52), (64, 48)] * 5)
    assert lengths(read(few, tmp_path / "out")) == (40, 60, 90)
    assert capsys.readouterr().out.splitlines() == [
        "image size: 40, the largest multiple of 8 up to 64 that nine tenths of the photos have on their shorter side "
        "(40); --data.image_size sets another, a larger one takes longer",
        "length: teacher_train.epochs 60, train.epochs 90, for 16 training photos on a CPU; to train longer: "
        "--teacher_train.epochs 120 --train.epochs 180",
    ]
    many = photos(tmp_path / "many", [(20, 24)] * 250)  # 400 to train on
    assert lengths(read(many, tmp_path / "out")) == (16, 20, 30)
    assert capsys.readouterr().out.splitlines()[1] == (
        "length: teacher_train.epochs 20, train.epochs 30, for 400 training photos on a CPU; to train longer: "
        "--teacher_train.epochs 60 --train.epochs 90"
    )
    # What the user gives wins.
    assert lengths(read(many, tmp_path / "out", "--train.epochs=70", "--data.image_size=24")) == (24, 20, 70)
    assert lengths(read(many, tmp_path / "out", "--teacher_train", "{epochs: 50}")) == (16, 50, 30)


def test_what_keeps_its_own_size(tmp_path: Path) -> None:
    squares = photos(tmp_path / "squares", [(24, 24)] * 10)
    assert lengths(read(squares, tmp_path / "out"))[0] is None
    other = photos(tmp_path / "others", [(40, 52)] * 10)
    assert lengths(read(other, tmp_path / "out", "--network.name=torchvision:resnet18"))[0] is None


def test_photos_that_are_split_already(tmp_path: Path) -> None:
    for part, count in (("Train", 400), ("Test", 2)):
        photos(tmp_path / "split" / part, [(20, 24)] * count)
    assert lengths(read(tmp_path / "split", tmp_path / "out")) == (16, 10, 15)


def test_a_run_that_is_continued_and_a_recipe_of_ones_own(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", [(20, 24)] * 250)

    def begun(name: str, **fields: Any) -> Path:
        (tmp_path / name).mkdir()
        recorded = {"data": {"name": "folder", "image_size": None}, "teacher_train": {"epochs": 60}, **fields}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(recorded))
        return tmp_path / name

    # One of before the rule stays at 224 pixels and at its epochs; another keeps what it began with.
    assert lengths(read(root, begun("old", train={"epochs": 90}))) == (None, 60, 90)
    new = begun("new", data={"name": "folder", "image_size": 40}, train={"epochs": 12})
    assert lengths(read(root, new)) == (40, 60, 12)
    assert lengths(read(root, new, "--train.epochs=5")) == (40, 60, 5)
    # Another data set's run in the folder says nothing of photos.
    assert lengths(read(root, begun("digits", data={"name": "digits"}))) == (16, 20, 30)
    own = tmp_path / "own.yaml"
    own.write_text("data: {name: folder}\ntrain: {epochs: 200}\n")
    assert lengths(read(root, tmp_path / "out", recipe=str(own))) == (16, 60, 200)
