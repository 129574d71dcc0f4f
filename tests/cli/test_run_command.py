"""`run` on small images: the files that it leaves, what it takes up again, and the teachers that it takes."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import TINY
from helpers.command_line import SMALL

import bnn_itrd
from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.errors import UserError
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.training.checkpoint import load_checkpoint, save_checkpoint


def test_run_leaves_everything(road: Path) -> None:
    for name in ("config.yaml", "comparison.json", "report.html", "curves.png"):
        assert (road / name).is_file(), name
    for member, file in (
        ("teacher", "teacher.onnx"),
        ("recu", "student.onnx"),
        ("recu-itrd", "student.onnx"),
    ):
        for name in (
            "config.yaml",
            "environment.json",
            "metrics.csv",
            "last.pt",
            "best.pt",
            "comparison.json",
            file,
        ):
            assert (road / member / name).is_file(), (member, name)


def test_comparison_tells_the_truth(road: Path) -> None:
    comparison = json.loads((road / "comparison.json").read_text())
    assert [m["name"] for m in comparison["models"]] == ["teacher", "recu", "recu-itrd"]
    for model in comparison["models"]:
        artefact = model["artefacts"][0]
        assert artefact["images"] == 48 and artefact["agreement"] == 100.0
        assert artefact["bytes"] == (road / model["name"] / artefact["file"]).stat().st_size
        assert np.trace(np.array(model["confusion"])) / 48 * 100 == pytest.approx(model["top1_last"])
        assert model["top1_last"] == pytest.approx(model["curve"][-1]["test_top1"])
        assert model["binary"] == (model["name"] != "teacher")
    student, teacher = comparison["models"][1], comparison["models"][0]
    assert student["compression"] == pytest.approx(teacher["bytes"] / student["bytes"])
    for difference in comparison["differences"]:
        answers = set(difference["predictions"].values())
        assert len(answers) > 1


def test_a_finished_run_is_not_trained_again(road: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = {p: p.stat().st_mtime_ns for p in road.glob("*/last.pt")}
    assert main(["run", "digits", *SMALL, f"--data.root={tiny_npz}", f"--out={road}"]) == 0
    assert {p: p.stat().st_mtime_ns for p in road.glob("*/last.pt")} == stamps
    # What it ends with can be pasted.
    lines = capsys.readouterr().out.partition("Next:\n")[2].splitlines()
    pasted = {words[1]: words[1:] for words in (shlex.split(line) for line in lines if line.startswith("  bnn-itrd "))}
    for name in ("predict", "bench"):
        assert main(pasted[name]) == 0
    assert f"{road}/example.png: class" in capsys.readouterr().out
    assert [Path(words[2]) for words in pasted.values() if "--against" in words] != []
    assert any(line.endswith((f" {road}/report.html", "/report.html")) for line in lines)


def test_location_devices_and_logging_may_differ_nothing_else(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.npz"
    shutil.copy(tiny_npz, moved)
    assert main(["run", "digits", *SMALL, f"--data.root={moved}", "--data.workers=0", f"--out={road}"]) == 0
    capsys.readouterr()
    code = main(["run", "digits", *SMALL, f"--data.root={moved}", "--train.lr=0.3", f"--out={road}"])
    error = capsys.readouterr().err
    assert code == 2 and "belongs to another configuration" in error and "train.lr: 0.1 there, 0.3 given" in error
    assert yaml.safe_load((road / "config.yaml").read_text())["train"]["lr"] == 0.1


def test_a_half_trained_teacher_is_refused(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = load_checkpoint(road / "teacher" / "last.pt")
    state.pop("format")
    state["identity"]["train"]["epochs"] = 9
    save_checkpoint(tmp_path / "half" / "last.pt", state)
    arguments = ["train", "digits", *SMALL, f"--data.root={tiny_npz}", "--member=recu-itrd", f"--out={tmp_path / 'o'}"]
    assert main([*arguments, f"--teacher={tmp_path / 'half'}"]) == 2
    assert "is at epoch 1 of 9: finish its training" in capsys.readouterr().err


def test_load_of_a_run_with_one_student(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "teacher", tmp_path / "run" / "teacher")
    shutil.copytree(road / "recu", tmp_path / "run" / "recu")
    assert any(isinstance(m, BinaryConv2d) for m in bnn_itrd.load(tmp_path / "run").modules())
    with pytest.raises(UserError, match=r"in the folders of its networks recu, recu-itrd, teacher: name one"):
        bnn_itrd.load(road)


def test_a_first_stage_is_not_taken_for_its_student(road: Path, tmp_path: Path) -> None:
    shutil.copytree(road / "recu", tmp_path / "recu" / "first-stage")
    with pytest.raises(UserError, match="has only a checkpoint of its first training stage"):
        bnn_itrd.load(tmp_path / "recu")
    assert any(isinstance(m, BinaryConv2d) for m in bnn_itrd.load(tmp_path / "recu" / "first-stage").modules())


def test_options_of_a_teacher_that_would_be_ignored(
    road: Path, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["digits", *SMALL, f"--data.root={tiny_npz}", f"--out={tmp_path / 'out'}"]
    for arguments, message in (
        (["run", *base, "--teacher_weights=w.pt"], "teacher_weights must be given together with teacher"),
        (["run", *base, "--teacher_weights=w.pt", f"--teacher={road}"], "teacher_weights is for torchvision:NAME"),
        (["train", *base, "--member=teacher", f"--teacher={road}"], "is given, so none is trained"),
        # Another run's folder: the name comes first.
        (
            ["train", "digits", "--member=recuu", f"--out={road}"],
            "unknown member 'recuu', did you mean 'recu'? Expected",
        ),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_summary_compare_recipes(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "cifar10"]) == 0
    text = capsys.readouterr().out
    assert "11,173,962" in text and "11,005,002" in text
    assert main(["summary", str(road / "recu")]) == 0
    assert "BinaryConv2d" in capsys.readouterr().out
    assert main(["compare", str(road / "recu"), str(road / "recu-itrd"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["method"] for r in rows] == ["teacher", "recu", "recu-itrd"]
    assert main(["compare", str(road), "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| data |")
    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in recipes.names())


def test_a_trained_teacher_is_reused(road: Path, tiny_npz: Path, tmp_path: Path) -> None:
    assert main([
        "run", "digits", *SMALL, f"--data.root={tiny_npz}", f"--teacher={road}", f"--out={tmp_path}",
        "--students={itrd: {itrd: {}}}",
    ]) == 0  # fmt: skip
    assert not (tmp_path / "teacher" / "last.pt").exists()
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert [m["name"] for m in comparison["models"]] == ["teacher", "itrd"]


def test_a_torchvision_teacher(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torchvision

    model = torchvision.models.mobilenet_v3_small(weights=None, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    base = ["train", "digits", *TINY, f"--data.root={tiny_npz}", "--data.image_size=32", "--network.width=0.25",
            "--member=recu-itrd", f"--out={tmp_path / 'out'}", "--log.tensorboard=false", "--network.name=resnet8",
            "--train.epochs=1", "--report=false"]  # fmt: skip
    assert main([*base, "--teacher=torchvision:mobilenet_v3_small"]) == 2
    assert "is untrained: give its state dict with --teacher_weights" in capsys.readouterr().err
    assert main([*base, "--teacher=torchvision:mobilnet_v3_small"]) == 2
    assert "did you mean 'mobilenet_v3_small'" in capsys.readouterr().err
    chosen = [*base, "--teacher=torchvision:mobilenet_v3_small"]
    assert main([*chosen, f"--teacher_weights={tmp_path / 'none.pt'}"]) == 2
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    assert main([*chosen, f"--teacher_weights={tmp_path / 'other.pt'}"]) == 2
    assert "is not the state dict of torchvision:mobilenet_v3_small" in capsys.readouterr().err
    assert main([*chosen, f"--teacher_weights={tmp_path / 'w.pt'}"]) == 0
