"""Recipes and fields on the command line, and every message on bad input."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import RunConfig


def config(*arguments: str, recipe: str = "digits") -> RunConfig:
    return run_config("run", "", recipes.read(recipe), arguments, extra={"out": "folder"})[0]


@pytest.mark.parametrize("name", [name for name in recipes.names() if "task" not in recipes.read(name)])
def test_every_recipe_parses_and_says_what_it_is_for(name: str) -> None:
    assert config(recipe=name).students
    assert len(recipes.describe(name)) > 20


def test_any_field_can_be_overridden() -> None:
    made = config(
        "--train.lr=0.3", "--data.crop_padding", "1", "--students.recu-itrd.itrd.alpha", "1.5",
        "--students.new.kd.tau=2", "--scheme.tau_max=0.95", "--network.padding_value=-1",
    )  # fmt: skip
    assert made.train.lr == 0.3 and made.data.crop_padding == 1 and made.scheme.tau_max == 0.95
    itrd, kd = made.students["recu-itrd"].itrd, made.students["new"].kd
    assert itrd is not None and itrd.alpha == 1.5 and itrd.beta_corr == 2.0
    assert kd is not None and kd.tau == 2.0 and made.network.padding_value == -1


def test_one_seed_for_all() -> None:
    for arguments in (["--seed=7"], ["--seed", "7"]):
        made = config(*arguments, "--train.lr=0.2")
        assert (made.train.seed, made.teacher_train.seed, made.train.lr) == (7, 7, 0.2)


def test_recipe_files_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 3}\nstudents: {a: {ce: 0.5}}\n")
    made = config(recipe=str(path))
    assert made.train.epochs == 3 and made.students["a"].ce == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "digits"], "unknown command 'rnu'.*did you mean 'run'"),
        (["run", "digit"], "unknown recipe 'digit'.*did you mean 'digits'"),
        (["run", "no/such.yaml"], "no recipe file no/such.yaml"),
        (["run"], "needs a recipe: one of cifar10"),
        (
            ["run", "digits", "--train.epoch=3"],
            r"unknown option '--train\.epoch'.*did you mean '--train\.epochs'",
        ),
        (["run", "digits", "--data.name=digitz"], "unknown data set 'digitz'.*did you mean 'digits'"),
        (["run", "digits", "--network.name=resnet19"], "unknown network 'resnet19'.*did you mean 'resnet1"),
        (["run", "digits", "--scheme.weight=recoo"], "unknown weight binariser 'recoo'.*did you mean 'recu'"),
        (["run", "digits", "--scheme.tau_min=0.3"], r"tau_min must be in \(0\.5, 1\), got 0\.3"),
        (["run", "digits", "--train.epochs=many"], r"train\.epochs must be int, got many"),
        (["run", "digits", "--train.lr=-1"], r"train\.lr must be > 0 \(--train\.lr 0\.1\), got -1"),
        (
            ["run", "digits", "--train.optimizer=sgdd"],
            r"train\.optimizer must be one of \['sgd', 'adamw'\], got sgdd",
        ),
        (
            ["run", "digits", "--students.a.kdd.tau=3"],
            r"unknown field of students\.a 'kdd'.*did you mean 'kd'",
        ),
        (
            ["run", "digits", "--students.a.kd.tau=0"],
            r"students\.a\.kd\.tau must be > 0 \(--students\.a\.kd\.tau 4\.0\), got 0",
        ),
        (["run", "digits", "--students={../x: {}}"], "cannot be a student's name"),
        (["train", "digits", "--member=recoo"], "unknown member 'recoo'.*did you mean 'recu'"),
        (["train", "digits"], "--member is missing: give one of teacher, recu"),
        (["evaluate", "nowhere"], "no such file or folder: nowhere"),
        (["validate", "nowhere.onnx"], "no such file: nowhere.onnx"),
        (["compare", "nowhere"], "no comparison.json in nowhere"),
        (["run", "cifar10"], r"needs its images: give --data\.root"),
        (["run", "digits", "--teacher=torchvison:resnet18"], "unknown library of teachers 'torchvison'"),
        (["run", "digits", "--fabric.accelerator=gpx"], "fabric: .*gpx"),
        (["run", "digits", "--students={a: ["], "--students: .* is not YAML"),
        (
            ["run", "digits", "--train.momentum=0"],
            r"train\.momentum must be > 0 with nesterov \(--train\.momentum 0\.9\), got 0",
        ),
        (["run", "digits", "--students.a.itrd.beta_corr=-1"], r"students\.a\.itrd\.beta_corr must be >= 0 .*, got -1"),
        (["compare", "also-nowhere"], "there is no such folder"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {lr: 1}", "unknown field in the recipe 'trian.lr'.*did you mean 'train.lr'"),
        ("train: {epochs: [1]}", "train.epochs"),
        ("students: [a]", "students must hold names"),
        ("students: {a: 3}", "students.a must hold fields"),
        ("- 1", "must hold fields"),
        ("a: [", "is not YAML"),
    ],
)
def test_bad_recipes(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["run", str(path), f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


def test_help_reads_like_documentation(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("run", "--help")
    assert done.returncode == 0
    for text in ("--train.lr", "peak learning rate", "--students.NAME", "runs/RECIPE by default"):
        assert text in done.stdout, text
    assert main(["--help"]) == 0
    assert command("validate", "--help").returncode == 0
