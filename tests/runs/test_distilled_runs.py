"""What `distill` returns and writes is enough for every command."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bnn_itrd
from bnn_itrd.cli import main
from bnn_itrd.config import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.export import read_metadata
from bnn_itrd.models import resnet8
from bnn_itrd.training.checkpoint import load_checkpoint

TRAIN = TrainConfig(epochs=1, batch_size=256, warmup_epochs=0)
QUIET = {"train": TRAIN, "fabric": FabricConfig(accelerator="cpu", threads=1), "log": LogConfig(False, False)}
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bnn_itrd.Distilled]:
    """A teacher and its student on the digits, trained for an epoch, with the student's report."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    teacher = resnet8(10, in_channels=1, input_shape=SHAPE)
    student = resnet8(10, in_channels=1, input_shape=SHAPE, binary="recu")
    bnn_itrd.distill(teacher, None, "digits", out=folder / "t", **QUIET)
    return folder, bnn_itrd.distill(student, teacher, "digits", out=folder / "s", report=True, **QUIET)


def test_the_report_is_that_of_a_run(runs: tuple[Path, bnn_itrd.Distilled]) -> None:
    folder, made = runs
    comparison = json.loads((folder / "s" / "comparison.json").read_text())
    teacher, student = comparison["models"]
    assert (teacher["name"], student["name"], student["network"]) == ("teacher", "s", "resnet8")
    assert student["top1_last"] == pytest.approx(made.final.top1) and student["reference"] == "teacher"
    assert (teacher["compression"], student["binary"], teacher["binary"]) == (1.0, True, False)
    assert student["artefacts"][0]["agreement"] == 100
    names = {path.name for path in (folder / "s").iterdir()}
    assert {"student.onnx", "comparison.json", "report.html", "curves.png", "config.yaml"} <= names
    assert (folder / "s" / "teacher" / "teacher.onnx").is_file()


def test_its_speed_is_that_of_both_forms_against_the_teacher(runs: tuple[Path, bnn_itrd.Distilled]) -> None:
    folder, _ = runs
    comparison = json.loads((folder / "s" / "comparison.json").read_text())
    teacher, student = comparison["models"]
    assert [row["form"] for row in teacher["speed"]] == ["stock"] and teacher["speed"][0]["ratio"] == 1
    forms = [row["form"] for row in student["speed"]]
    assert forms == (["native", "stock"] if student["artefacts"][0]["native"] else ["stock"])
    assert student["ms_per_image"] == student["speed"][0]["ms_per_image"]
    for row in student["speed"]:
        assert row["ratio"] == pytest.approx(teacher["ms_per_image"] / row["ms_per_image"])
        assert 0 < row["ratio_low"] <= row["ratio_high"]
    assert ("native library" in student["ms_what"]) == (forms[0] == "native")


def test_the_page_says_when_it_was_and_links_the_files(runs: tuple[Path, bnn_itrd.Distilled]) -> None:
    folder, _ = runs
    comparison = json.loads((folder / "s" / "comparison.json").read_text())
    written = datetime.datetime.fromisoformat(comparison["date"])
    assert written.utcoffset() == datetime.timedelta(0) and comparison["wall_seconds"] > 0
    page = (folder / "s" / "report.html").read_text()
    assert f"{written:%B}&nbsp;{written:%Y, %H:%M}&nbsp;UTC" in page
    assert '<a href="student.onnx">' in page and '<a href="teacher/teacher.onnx">' in page


def test_the_file_knows_its_classes_and_its_normalisation(
    runs: tuple[Path, bnn_itrd.Distilled], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, made = runs
    file = made.to_onnx(tmp_path / "mine.onnx")
    known = read_metadata(file)
    assert known["classes"] == list("0123456789") and known["mean"] == pytest.approx(made.data.mean)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "photo.png")
    assert main(["predict", str(file), str(tmp_path / "photo.png")]) == 0
    assert "photo.png: " in capsys.readouterr().out


def test_the_commands_take_its_folder(
    runs: tuple[Path, bnn_itrd.Distilled], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, made = runs
    assert main(["evaluate", str(folder / "s"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == pytest.approx(made.final.top1)
    assert main(["export", str(folder / "s"), "--out", str(tmp_path)]) == 0 and (tmp_path / "student.onnx").is_file()
    assert main(["validate", str(tmp_path / "student.onnx"), "--checkpoint", str(folder / "s")]) == 0
    assert main(["summary", str(folder / "t")]) == 0
    assert main(["compare", str(folder / "s")]) == 0
    fresh, kept = bnn_itrd.load(folder / "s"), made.model.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in fresh.state_dict().items())


def test_a_run_from_before_networks_were_remembered_continues(
    runs: tuple[Path, bnn_itrd.Distilled], tmp_path: Path
) -> None:
    folder, _ = runs
    state = load_checkpoint(folder / "t" / "last.pt")
    assert state["identity"].pop("made_by")["network"]["name"] == "resnet8"
    (tmp_path / "t").mkdir()
    torch.save(state, tmp_path / "t" / "last.pt")
    teacher = resnet8(10, in_channels=1, input_shape=SHAPE)
    again = bnn_itrd.distill(teacher, None, "digits", out=tmp_path / "t", **QUIET)
    assert len(again.history) == 1  # nothing was trained: the run was done
