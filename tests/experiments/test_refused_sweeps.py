"""Sweeps that are refused before any training, and the words for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.sweeps import sweep

from bnn_itrd.cli import main

REFUSED = {
    "no grid": ([], "the grid is empty"),
    "no value": (["--grid", "train.seed="], "--grid train.seed is empty"),
    "a hole": (["--grid", "train.seed=0,,1"], "--grid train.seed has an empty value"),
    "no field": (["--grid", "0,1"], "--grid must be FIELD=VALUE,VALUE"),
    "no axis": (["--grid"], "--grid needs a field and its values"),
    "unknown field": (["--grid", "train.lrr=1"], "unknown field in --grid 'train.lrr'.*did you mean 'train.lr'"),
    "a group": (["--grid", "train=1"], "unknown field in --grid 'train'"),
    "unknown method": (["--methods", "kdd"], "unknown method 'kdd'.*did you mean 'd?kd'"),
    "no method": (["--methods"], "--methods is empty"),
    "method twice": (["--methods", "kd", "kd"], "--methods names kd more than once"),
    "axis twice": (["--grid", "train.seed=0", "--grid", "train.seed=1"], "--grid train.seed is given more than once"),
    "value twice": (["--grid", "train.seed=0,0"], "two trainings of the grid are called recu-s0"),
    "wrong type": (["--grid", "train.seed=0,many"], "train.seed must be int, got many"),
    "out of range": (["--grid", "train.lr=0.1,-1"], r"train.lr must be > 0 .--train.lr 0.1., got -1.0"),
    "unknown student": (
        ["--methods", "kd", "--grid", "students.kdd.kd.tau=2"],
        "unknown student in --grid students.kdd.kd.tau: 'kdd'.*did you mean 'kd'",
    ),
    "unknown option": (["--methods", "kd", "--grid", "students.kd.kd.tauu=2"], "tauu"),
    "option of wrong type": (["--methods", "kd", "--grid", "students.kd.kd.tau=hot"], r"students\.kd\.kd\.tau must be"),
    "unknown network": (["--grid", "network.name=resnet8,resnet9"], "recu-resnet9-s0: unknown network 'resnet9'"),
    "unknown scheme": (["--grid", "scheme.weight=recu,xnorr"], "xnorr-recu-s0: scheme.*xnorr"),
    "too few negatives": (["--methods", "crd"], "recu-crd-s0: students.crd.crd.negatives must be in .*got 16384"),
    "no such stage": (
        ["--methods", "fitnet", "--students.fitnet.fitnet.stage=7"],
        "recu-fitnet-s0: fitnet.stage is",
    ),
    "batch size": (["--grid", "train.batch_size=32,1000"], "recu-batch_size1000-s0: train.batch_size 1000 is larger"),
    "teacher's batch size": (["--methods=kd", "--teacher_train.batch_size=999"], "teacher_train.batch_size 999 is"),
    "processes": (["--methods", "kd", "--fabric.devices=2"], "a sweep runs in one process"),
    "no such teacher": (["--methods", "kd", "--teacher=/nowhere"], "recu-kd-s0: no such file or folder: /nowhere"),
    "no first weights": (
        ["--scheme.binary=false", "--methods=kd", "--network.weights=/no.pth", "--grid=train.seed=0"],
        "plain-s0: no file /no.pth for --network.weights",
    ),
    "unknown reference": (["--methods", "kd", "--reference=dkd"], "unknown --reference 'dkd'"),
    "a flag's value": (["--methods", "kd", "--json=true"], "--json takes no value"),
    "unknown data": (["--grid", "data.name=cifar10,cifar11"], "unknown data set 'cifar11'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_training(
    case: str,
    tiny_npz: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grid, message = REFUSED[case]
    assert sweep(tiny_npz, tmp_path / "out", grid=grid) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_recipe_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--grid", "train.seed=0"]) == 2
    assert "bnn-itrd sweep needs a recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    assert "--teacher_per_seed" in capsys.readouterr().out
