"""A teacher of other classes teaches what needs no logits, and sees images as it was trained."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY
from helpers.recipes import synthetic

from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.normalisation import seen_as_trained
from bnn_itrd.errors import UserError
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.teachers import load_teacher
from bnn_itrd.training.metrics import read_metrics


@pytest.fixture(scope="module")
def other_task(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> tuple[Path, Path]:
    """(a teacher of the three classes, images of five others)."""
    folder = tmp_path_factory.mktemp("other")
    arguments = ["train", "digits", *TINY, f"--data.root={tiny_npz}", "--network.name=resnet8", "--member=teacher",
                 f"--out={folder / 'run'}", "--log.tensorboard=false"]  # fmt: skip
    assert main(arguments) == 0
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {"classes": np.array([f"other{i}" for i in range(5)])}
    for split, count in (("train", 60), ("test", 20)):
        arrays[f"x_{split}"] = rng.integers(60, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 5
    np.savez(folder / "five.npz", **arrays)
    return folder / "run", folder / "five.npz"


def test_a_teacher_of_other_classes_teaches_what_needs_no_logits(
    other_task: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, five = other_task
    base = ["run", "digits", *TINY, f"--data.root={five}", f"--teacher={teacher}", "--network.name=resnet8",
            "--network.width=0.5", "--log.tensorboard=false", "--train.batch_size=20"]  # fmt: skip
    students = "--students={s: {vid: {form: logits}, itrd: {}}}"
    assert main([*base, students, f"--out={tmp_path / 'run'}"]) == 0
    rows = read_metrics(tmp_path / "run" / "s" / "metrics.csv")
    assert len(rows) == 2 and all(math.isfinite(row[part]) for row in rows for part in ("loss_vid", "loss_itrd"))
    assert load_member(tmp_path / "run" / "s")[0](torch.zeros(1, 3, 16, 16)).shape == (1, 5)
    # Its answers are no answers to the question of its students: it has no row.
    models = json.loads((tmp_path / "run" / "comparison.json").read_text())["models"]
    assert [(m["name"], m["reference"]) for m in models] == [("s", None)]
    capsys.readouterr()
    for method in ("kd", "dkd", "dist"):
        assert main([*base, f"--students={{s: {{{method}: {{}}}}}}", f"--out={tmp_path / method}"]) == 2
        error = capsys.readouterr().err
        assert re.search(r"was trained for classes .*only students without kd, dkd and dist", error), error
        assert not (tmp_path / method).exists()


def test_a_teacher_of_another_task_sees_images_as_it_was_trained(other_task: tuple[Path, Path]) -> None:
    folder, five = other_task
    data = load_data(DataConfig(name="cifar10", root=str(five), image_size=16))
    member = load_teacher(str(folder), None, data, other_classes=True)
    plain, identity, _ = load_member(folder / "teacher")
    images, _, _ = next(data.test.eval_batches(20, device=torch.device("cpu")))
    pixels = np.stack([data.test.raw(i) for i in range(20)]).astype(np.float64) / 255
    own = (pixels - np.array(identity["mean"])) / np.array(identity["std"])
    with torch.no_grad():
        expected = plain(torch.from_numpy(own.transpose(0, 3, 1, 2)).float())
        with seen_as_trained(member.model, data):
            torch.testing.assert_close(member.model(images), expected, rtol=1e-4, atol=1e-5)
    assert member.other_task and (plain(images) - expected).abs().max() > 1e-3


def test_a_library_teacher_of_other_classes(tmp_path: Path) -> None:
    import torchvision

    model = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=7)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    data, address = synthetic(3, (3, 32, 32)), "torchvision:shufflenet_v2_x0_5"
    member = load_teacher(address, str(tmp_path / "w.pt"), data, other_classes=True)
    assert member.other_task and member.model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(UserError, match=r"is not the state dict of torchvision:shufflenet_v2_x0_5 with 3 classes"):
        load_teacher(address, str(tmp_path / "w.pt"), data)
    with pytest.raises(UserError, match=r"is not the state dict"):
        load_teacher("torchvision:resnet18", str(tmp_path / "w.pt"), data, other_classes=True)
    assert not load_teacher(address, str(tmp_path / "w.pt"), synthetic(7, (3, 32, 32)), other_classes=True).other_task
