"""What a recipe's warm-up and milestones become in a training that the user asked to be shorter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import TINY

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import RunConfig
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.grid import make_points, parse_axis


def parsed(recipe: str | dict[str, Any], *words: str) -> tuple[RunConfig, list[str]]:
    """The configuration, and the lines that were said."""
    lines: list[str] = []
    tree = recipes.read(recipe) if isinstance(recipe, str) else recipe
    return run_config("run", "", tree, words, extra={}, say=lines.append)[0], lines


def test_the_first_thing_that_everyone_tries() -> None:
    made, lines = parsed("digits", "--train.epochs", "2", "--teacher_train.epochs", "2")
    assert (made.train.warmup_epochs, made.teacher_train.warmup_epochs) == (0.16, 0.27)
    assert lines == [
        "teacher_train.warmup_epochs: the recipe's 2 of 15 epochs, shortened to 0.27 of 2",
        "train.warmup_epochs: the recipe's 2 of 25 epochs, shortened to 0.16 of 2",
    ]


def test_it_runs_and_the_run_holds_the_shortened_numbers(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [word for word in TINY if "warmup" not in word]
    given = [
        *small,
        f"--data.root={tiny_npz}",
        "--network.name=resnet8",
        "--network.width=0.25",
        "--log.tensorboard=false",
    ]
    # A learner with a distiller whose own warm-up is longer: that one stays (docs/reference/distillers.md).
    students = "--students={dkd: {dkd: {}}}"
    arguments = ["train", "digits", *given, students, f"--out={tmp_path}"]
    assert main([*arguments, "--member=teacher"]) == 0
    assert "teacher_train.warmup_epochs: the recipe's 2 of 15 epochs, shortened to 0.13 of 1" in capsys.readouterr().out
    tree = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (tree["teacher_train"]["warmup_epochs"], tree["train"]["warmup_epochs"]) == (0.13, 0.16)
    assert tree["students"]["dkd"]["dkd"]["warmup_epochs"] == METHODS["dkd"]().warmup_epochs == 20
    assert yaml.safe_load((tmp_path / "teacher" / "config.yaml").read_text())["train"]["warmup_epochs"] == 0.13
    assert main([*arguments, "--member=teacher"]) == 0  # continues


def test_milestones_keep_their_proportions() -> None:
    pair = "cifar100-vgg13-vgg8"
    made, lines = parsed(pair, "--train.epochs=200", "--teacher_train.epochs=10")
    assert (made.train.milestones, made.teacher_train.milestones) == ((125, 150, 175), (6, 7, 8))
    assert lines == [
        "teacher_train.milestones: the recipe's [150, 180, 210] of 240 epochs, shortened to [6, 7, 8] of 10",
        "train.milestones: the recipe's [150, 180, 210] of 240 epochs, shortened to [125, 150, 175] of 200",
    ]
    assert parsed(pair, "--train.epochs=1")[0].train.milestones == ()
    # What fits stays.
    assert parsed(pair, "--train.epochs=220")[1] == []
    assert parsed(pair, "--train.epochs=2", "--train.schedule=cosine")[1] == []


def test_two_stages_have_one_warm_up() -> None:
    made, lines = parsed("cifar10-two-stage", "--scheme.first_stage_epochs=4", "--train.epochs=8")
    first = made.train.of_first_stage(4)
    assert made.train.warmup_epochs == first.warmup_epochs == 0.1
    assert lines == ["train.warmup_epochs: the recipe's 5 of 200 epochs, shortened to 0.1 of 4"]


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        ("digits", ["--train.epochs=2", "--train.warmup_epochs=2"], "train.warmup_epochs is 2 but"),
        ("digits", ["--train={epochs: 2, warmup_epochs: 2}"], "train.warmup_epochs is 2 but"),
        ("digits", ["--train.warmup_epochs=25"], "train.warmup_epochs is 25 but the training has 25"),
        ("digits", ["--train.epochs=0"], "train.epochs must be >= 1"),
        ("cifar100-vgg13-vgg8", ["--train.epochs=9", "--train.milestones=[9]"], "train.milestones must be"),
        # Its milestones are for 240 epochs by default, and the recipe has none.
        ("digits", ["--train.schedule=step", "--train.epochs=20"], "train.milestones must be"),
        # The recipe itself does not fit.
        ({"train": {"epochs": 2, "warmup_epochs": 2}}, ["--train.epochs=1"], "train.warmup_epochs is 2 but"),
        ({"train": {"epochs": 2, "warmup_epochs": 2}}, [], "train.warmup_epochs is 2 but"),
        ({"train": {"epochs": 0, "warmup_epochs": 2}}, ["--train.epochs=1"], "train.warmup_epochs is 2 but"),
        # 0.5 does not fit either.
        ("cifar10-two-stage", ["--scheme.first_stage_epochs=2", "--train.warmup_epochs=2"], "the first stage has 2"),
    ],
)
def test_what_the_user_gave_himself_is_refused(recipe: str | dict[str, Any], words: list[str], message: str) -> None:
    lines: list[str] = []
    tree = recipes.read(recipe) if isinstance(recipe, str) else recipe
    with pytest.raises(UserError, match=message):
        run_config("run", "", tree, words, extra={}, say=lines.append)
    assert lines == []


def test_points_of_a_grid() -> None:
    lines: list[str] = []
    axes = [parse_axis("train.epochs=1,5,30"), parse_axis("train.seed=0,1")]
    points = make_points(recipes.read("digits"), {"recu": {}}, axes, say=lines.append)
    warmups = {(p.config.train.epochs, p.config.train.warmup_epochs) for p in points}
    assert warmups == {(1, 0.08), (5, 2.0), (30, 2.0)} and len(points) == 6
    assert set(lines) == {"train.warmup_epochs: the recipe's 2 of 25 epochs, shortened to 0.08 of 1"}


def test_a_sweep_says_it_once_and_not_among_its_json(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [word for word in TINY if "warmup" not in word and "teacher" not in word]
    given = ["--network.width=0.25", "--network.name=resnet8", "--students={recu: {}}", f"--data.root={tiny_npz}"]
    arguments = ["sweep", "digits", *small, *given, "--log.tensorboard=false", f"--out={tmp_path}"]
    assert main([*arguments, "--grid", "train.seed=0,1", "--json"]) == 0
    captured = capsys.readouterr()
    line = "train.warmup_epochs: the recipe's 2 of 25 epochs, shortened to 0.16 of 2"
    assert captured.err.count(line) == 1 and len(json.loads(captured.out)["points"]) == 2
