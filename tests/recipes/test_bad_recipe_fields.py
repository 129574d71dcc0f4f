"""Fields of recipes that do not fit are told before any training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import TINY

from bnn_itrd.cli import main


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("cifar100-resnet56-resnet21", [], r"unknown recipe .*did you mean 'cifar100-resnet56-resnet20'"),
        ("digits", ["--network.teacher=resnet57"], r"teacher: unknown network 'resnet57'.*did you mean 'resnet5"),
        ("digits", ["--network.name=torchvision:resnet19"], r"unknown torchvision network 'resnet19'.*'resnet1"),
        ("digits", ["--network.name=torchvision:resnet18", "--network.width=0.5"],
         r"network\.width is an option of bnn_itrd's networks; torchvision:resnet18 has only padding_value"),
        ("digits", ["--train.schedule=step", "--train.milestones=[20, 10]", "--train.epochs=30"],
         r"train\.milestones must be .* = \(0, 30\) \(--train\.milestones \[15,22\]\), got \[20, 10\]"),
        ("digits", ["--train.schedule=steps"], r"train\.schedule must be one of \['cosine', 'step'\], got steps"),
        ("digits", ["--train.decay=0"], r"train\.decay must be in \(0, 1\] \(--train\.decay 0\.1\), got 0"),
        ("digits", ["--scheme.binary=false", "--network.padding_value=1"],
         r"network\.padding_value is an option of binary students, but scheme\.binary is false"),
        ("digits", ["--scheme.binary=false", "--scheme.first_stage_epochs=2"],
         r"scheme\.first_stage_epochs must be 0 with scheme\.binary false \(--scheme\.first_stage_epochs 0\), got 2"),
        ("digits", ["--scheme.first_stage_epochs=1", "--train.warmup_epochs=1"],
         r"train\.warmup_epochs is 1 but the first stage has 1 epoch: .* \(--train\.warmup_epochs 0\.5\)"),
        ("digits", ["--scheme.first_stage=reall", "--scheme.first_stage_epochs=1"],
         r"unknown weight binariser 'reall'.*did you mean 'real'"),
        # ResNet-18 has four stages, ResNet-20 three.
        ("digits", ["--network.teacher=resnet18", "--students={a: {at: {}}}"],
         r"students\.a: at compares .* the student has 3 stages and the teacher 4"),
        ("digits", ["--network.name=torchvision:vgg11", "--data.image_size=8", "--students={a: {}}"],
         r"teacher: the network cannot be used on images of 3x8x8"),
        ("digits", ["--students={a: {crd: {negatives: 1000}}}"], r"students\.a\.crd\.negatives .*1000"),
        ("digits", ["--network.teacher=shufflenet_v1", "--network.width=0.5"],
         r"teacher: network\.width is not an option of shufflenet_v1"),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_any_training(
    recipe: str, arguments: list[str], message: str, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = {token.partition("=")[0] for token in arguments}
    base = [token for token in TINY if token.partition("=")[0] not in given]
    assert main(["run", recipe, *base, f"--data.root={tiny_npz}", f"--out={out}", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not list(out.rglob("*.pt")) and "Traceback" not in error
