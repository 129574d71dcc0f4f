"""A message names the field where it stood, and an option that would do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bnn_itrd.cli import main
from bnn_itrd.config.run import MemberConfig, RunConfig, member_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.errors import FieldError, UserError

# Field, value, the message.
FIELDS = [
    ("teacher_train.lr", "-1", "teacher_train.lr must be > 0 (--teacher_train.lr 0.1), got -1.0"),
    ("train.lr", "-1", "train.lr must be > 0 (--train.lr 0.1), got -1.0"),
    ("teacher_train.epochs", "0", "teacher_train.epochs must be >= 1 (--teacher_train.epochs 60), got 0"),
    (
        "teacher_train.label_smoothing",
        "1",
        "teacher_train.label_smoothing must be in [0, 1) (--teacher_train.label_smoothing 0.0), got 1.0",
    ),
    # No default that would do is known.
    ("teacher_train.clip_norm", "0", "teacher_train.clip_norm must be > 0, got 0.0"),
    # Of a flag the other value.
    (
        "teacher_train.compile_mode",
        "reduce-overhead",
        "teacher_train.compile must be true with compile_mode (--teacher_train.compile true), got False",
    ),
    (
        "teacher_train.warmup_epochs",
        "15",
        "teacher_train.warmup_epochs is 15 but the training has 15 epochs: it must be shorter "
        "(--teacher_train.warmup_epochs 7)",
    ),
    (
        "teacher_train.warmup_epochs",
        "-1",
        "teacher_train.warmup_epochs must be >= 0, got -1.0",
    ),
    ("data.val_fraction", "1", "data.val_fraction must be in [0, 1) (--data.val_fraction 0.0), got 1.0"),
    ("network.width", "0", "network.width must be in (0, 64] (--network.width 1.0), got 0.0"),
    ("fabric.devices", "0", "fabric.devices must be >= 1 (--fabric.devices 1), got 0"),
    (
        "scheme.first_stage_epochs",
        "-1",
        "scheme.first_stage_epochs must be >= 0 (--scheme.first_stage_epochs 0), got -1",
    ),
    ("train", "3", "train must hold fields, {NAME: VALUE}, got 3"),
]


@pytest.mark.parametrize(("field", "value", "message"), FIELDS)
def test_on_the_command_line(field: str, value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "digits", f"--{field}", value]) == 2
    assert capsys.readouterr().err == f"bnn-itrd: {message}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher_train: {lr: -1}", "teacher_train.lr must be > 0 (--teacher_train.lr 0.1), got -1.0"),
        ("train: {epochs: 2, warmup_epochs: 2}", "train.warmup_epochs is 2 but the training has 2 epochs: it must be"),
        (
            "teacher_train: {epochs: 30, schedule: step, milestones: [20, 10]}",
            "teacher_train.milestones must be whole numbers that rise within (0, epochs) = (0, 30) "
            "(--teacher_train.milestones [15,22]), got [20, 10]",
        ),
        ("log: {progress: 3}", "log.progress must be bool, got 3"),
        ("students:", "students must hold names with what they learn from, {NAME: {kd: {}}}, got None"),
        ("train: 3", "train in the recipe must hold fields, {NAME: VALUE}, got 3"),
    ],
)
def test_in_a_recipe(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["run", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"bnn-itrd: {message}")


def test_in_a_recipe_of_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "squad-tiny", "--teacher_train.lr=-1"]) == 2
    message = "teacher_train.lr must be > 0 (--teacher_train.lr 0.0001), got -1.0"
    assert capsys.readouterr().err == f"bnn-itrd: {message}\n"


def test_the_first_of_two_stages(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--scheme.first_stage_epochs=3", "--train.warmup_epochs=3"]
    assert main(["train", "digits", "--member=recu", *words]) == 2
    message = "train.warmup_epochs is 3 but the first stage has 3 epochs: it must be shorter (--train.warmup_epochs 1)"
    assert capsys.readouterr().err == f"bnn-itrd: {message}\n"


def test_in_python() -> None:
    for make, message in (
        (lambda: TrainConfig(lr=-1), "train.lr must be > 0, got -1"),
        (
            lambda: TrainConfig(epochs=2, warmup_epochs=2),
            "train.warmup_epochs is 2 but the training has 2 epochs: it must be shorter",
        ),
        (
            lambda: TrainConfig(epochs=1, warmup_epochs=1.5),
            "train.warmup_epochs is 1.5 but the training has 1 epoch: it must be shorter",
        ),
        (
            lambda: RunConfig(scheme=SchemeConfig(first_stage_epochs=1), train=TrainConfig(warmup_epochs=1)),
            "train.warmup_epochs is 1 but the first stage has 1 epoch: it must be shorter",
        ),
    ):
        with pytest.raises(FieldError, match=re.escape(message) + "$"):
            make()


def test_a_members_first_stage_in_python() -> None:
    made = member_config(RunConfig(train=TrainConfig(warmup_epochs=2)), "recu")
    scheme = SchemeConfig(first_stage_epochs=2)
    alone = MemberConfig("s", made.data, made.network, scheme, made.train, made.distill, made.fabric, made.log)
    with pytest.raises(UserError, match="is 2 but the first stage has 2 epochs"):
        alone.of_first_stage()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("train:\n  epochs:\n", "train.epochs has no value: give it one, or leave the field out (--train.epochs 60)"),
        (
            "scheme: {weight: null}\n",
            "scheme.weight has no value: give it one, or leave the field out (--scheme.weight recu)",
        ),
        (
            "students: {a: {itrd: {alpha: null}}}\n",
            "students.a.itrd.alpha has no value: give it one, or leave the field out (--students.a.itrd.alpha 1.01)",
        ),
    ],
)
def test_a_field_without_a_value(recipe: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(recipe)
    assert main(["summary", str(tmp_path / "mine.yaml")]) == 2
    assert capsys.readouterr().err == f"bnn-itrd: {message}\n"


def test_a_field_that_may_be_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train: {ema: null, compile_mode: null}\nscheme: {tau_min: null}\n")
    assert main(["summary", str(tmp_path / "mine.yaml")]) == 0
