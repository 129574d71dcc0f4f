"""``scheme.from_teacher`` and ``train.weight_decay_of`` on the command line, to the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import TINY, write_npz

from bnn_itrd.cli import main
from bnn_itrd.training.checkpoint import load_checkpoint


def test_a_plain_student_begins_as_its_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    npz = write_npz(tmp_path / "x.npz")
    given = [*TINY, f"--data.root={npz}", "--data.image_size=8", "--network.name=resnet8", "--train.lr=1e-9"]
    given += ["--train.momentum=0", "--train.nesterov=false"]
    given += ["--scheme.from_teacher=true", "--train.weight_decay_of=weights", "--train.weight_decay=0.1"]
    run = ["run", "digits", *given, f"--out={tmp_path / 'run'}", "--report=false"]
    assert main(run) == 0
    teacher = load_checkpoint(tmp_path / "run" / "teacher" / "last.pt")
    student = load_checkpoint(tmp_path / "run" / "recu" / "last.pt")
    assert "teacher_sha256" in student["identity"]
    # At this rate nothing moves but the running statistics.
    torch.testing.assert_close(student["model"]["conv1.weight"], teacher["model"]["conv1.weight"], rtol=1e-5, atol=1e-7)
    name = "layer1.0.conv1.weight"
    assert torch.equal(student["model"][name].sign(), teacher["model"][name].sign())
    decays = [group["weight_decay"] for group in student["optimizer"]["param_groups"]]
    assert decays == [0.1, 0.0]
    # Another teacher is told from it where the run is continued.
    other = ["train", "digits", *given, "--teacher_train.seed=1", f"--out={tmp_path / 'other'}", "--report=false"]
    assert main([*other, "--member=teacher"]) == 0
    capsys.readouterr()
    assert main([*run, f"--teacher={tmp_path / 'other'}"]) == 2
    assert "teacher_sha256" in capsys.readouterr().err
    # A sweep says of a given teacher, before it trains anything, that it has other weights.
    sweep = ["sweep", "digits", *given, "--network.width=0.5", f"--teacher={tmp_path / 'run'}"]
    assert main([*sweep, "--grid", "train.seed=0,1", f"--out={tmp_path / 'sweep'}"]) == 2
    assert "the teacher has 0 of the 18,432 weights of the binary layers" in capsys.readouterr().err


def test_a_teacher_of_another_definition_is_told_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    npz = write_npz(tmp_path / "x.npz")
    given = [*TINY, f"--data.root={npz}", "--network.name=resnet8", "--network.teacher=resnet8x4"]
    assert main(["run", "digits", *given, "--scheme.from_teacher=true", f"--out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("bnn-itrd: scheme.from_teacher: recu: the teacher has 0 of the 73,")
    assert not (tmp_path / "run").exists()


def test_a_student_in_full_precision(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", "--scheme.binary=false", "--scheme.from_teacher=true"]) == 2
    assert "scheme.from_teacher must be false with scheme.binary false" in capsys.readouterr().err
