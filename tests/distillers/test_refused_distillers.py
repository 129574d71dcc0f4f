"""Distillers that do not fit their networks, or have values out of range, are refused before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.distilled_runs import CPU, QUIET, TEACHER, Flat, Net, dc, distilled, made
from torch import nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import RunConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import METHODS
from bnn_itrd.errors import UserError
from bnn_itrd.runs.run import run_recipe

REFUSED: list[tuple[DistillConfig, Callable[[], nn.Module], Callable[[], nn.Module], str]] = [
    (
        DistillConfig(at=dc.ATConfig()),
        Flat,
        Net,
        r"at compares the outputs .* stages, but the student has 0 of them",
    ),
    (
        DistillConfig(ft=dc.FTConfig()),
        Net,
        Flat,
        r"ft compares the outputs .* stages, but the teacher has 0 of them",
    ),
    (DistillConfig(reviewkd=dc.ReviewKDConfig()), Flat, Flat, r"reviewkd compares the outputs .*representation"),
    (DistillConfig(sp=dc.SPConfig(stage=3)), Net, Net, r"sp\.stage is 3, .* have 3 stages: give a number from -3 to 2"),
    (DistillConfig(ft=dc.FTConfig(stage=-4)), Net, Net, r"ft\.stage is -4, .* have 3 stages: give"),
    (DistillConfig(ft=dc.FTConfig(rate=0.05)), Net, Net, r"ft\.rate must be .*keep at least 1.*12 channels, got 0.05"),
    (
        DistillConfig(fsp=dc.FSPConfig()),
        Net,
        lambda: Net(TEACHER),
        r"fsp: student_shapes\[0\] must have the teacher's 8 channels, got 6",
    ),
    (
        DistillConfig(ab=dc.ABConfig()),
        lambda: Net(stride=8),
        lambda: Net(TEACHER),
        r"ab: student_shapes\[1\] must be at least as large as, or half of, the teacher's \(8, 8\), got \(2, 2\)",
    ),
    (
        DistillConfig(crd=dc.CRDConfig()),
        Net,
        Net,
        r"crd\.negatives must be in \[1, 64\] \(the samples outside the largest class\), got 16384",
    ),
    (DistillConfig(wcord=dc.WCoRDConfig(negatives=65)), Net, Net, r"wcord\.negatives must be in \[1, 64\]"),
    *(
        (
            DistillConfig(**{name: METHODS[name]()}),
            Net,
            lambda: Net(classes=4),
            f"{name} compares logits, but the student has 3 classes and the teacher 4",
        )
        for name in ("kd", "dkd", "dist")
    ),
]


@pytest.mark.parametrize(("distill", "student", "teacher", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_told_before_anything_is_written(
    data: ImageData,
    tmp_path: Path,
    distill: DistillConfig,
    student: Callable[[], nn.Module],
    teacher: Callable[[], nn.Module],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        distilled(data, tmp_path / "run", distill, student=student(), teacher=teacher())
    assert not (tmp_path / "run").exists()


def test_other_numbers_of_stages(data: ImageData, tmp_path: Path) -> None:
    teacher = made(2, Net, TEACHER)
    teacher.stages = ("a", "b")  # type: ignore[assignment]
    with pytest.raises(UserError, match="nst compares .* the student has 3 stages and the teacher 2"):
        distilled(data, tmp_path / "run", DistillConfig(nst=dc.NSTConfig()), student=made(1), teacher=teacher)
    # the maps of a stage that is no map cannot be counted on
    teacher.stages = ("a", "b", "linear")  # type: ignore[assignment]
    with pytest.raises(UserError, match="the teacher has 0 of them"):
        distilled(data, tmp_path / "run", DistillConfig(sp=dc.SPConfig()), student=made(1), teacher=teacher)


def test_a_run_tells_it_before_its_teacher_is_trained(npz: Path, tmp_path: Path) -> None:
    config = RunConfig(
        data=DataConfig(name="cifar10", root=str(npz)),
        network=NetworkConfig("resnet8", width=0.25),
        students={"plain": DistillConfig(), "mine": DistillConfig(crd=dc.CRDConfig())},
        fabric=CPU,
        log=QUIET,
    )
    with pytest.raises(UserError, match=r"students\.mine\.crd\.negatives must be in \[1, 64\]"):
        run_recipe(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "field", "value", "rule"),
    [
        ("crd", "momentum", 1.0, r"in \[0, 1\)"),
        ("wcord", "momentum", 1.5, r"in \[0, 1\)"),
        ("wcord", "epsilon", 0.0, "> 0"),
        ("crd", "negatives", 0, "an integer >= 1"),
        ("crd", "embed_dim", 1.5, "an integer >= 1"),
        ("kd", "tau", 0.0, "> 0"),
        ("kd", "weight", -1.0, ">= 0"),
        ("kd", "weight", math.nan, "finite"),
        ("kd", "final", math.inf, "finite"),
        ("kd", "warmup_epochs", -1.0, ">= 0"),
        ("itrd", "alpha", 0.0, "> 0"),
        ("at", "p", 0.5, ">= 1"),
        ("srd", "exponent", 0.5, ">= 1"),
        ("ft", "rate", 0.0, r"in \(0, 1\]"),
        ("ft", "rate", 1.1, r"in \(0, 1\]"),
        ("ft", "preparation_epochs", 0, ">= 1"),
        ("ab", "preparation_epochs", 0, ">= 1"),
        ("ab", "warmup_epochs", 2.0, "0.0: the term ends before"),
        ("ab", "final", 0.5, "1.0: the term ends before"),
        ("fsp", "preparation_epochs", -1, "an integer >= 0"),
        ("vid", "batch_norm", True, "false with form logits"),
        ("vid", "logits_weight", 2.0, "1 unless form is both"),
        ("lwf", "tau", 0.0, "> 0"),
        ("ft", "preparation_lr", 0.0, "> 0"),
        ("ab", "preparation_lr", math.inf, "> 0"),
        ("fsp", "warmup_epochs", 2.0, "0.0: the term ends before"),
        ("fsp", "final", 0.5, "1.0: the term ends before"),
        ("cc", "form", "other", "one of consecutive, kernel"),
        ("vid", "reduction", "max", "one of mean, sum"),
    ],
)
def test_values_out_of_range(name: str, field: str, value: Any, rule: str) -> None:
    # what makes the value wrong, where it is right by itself
    others = {"vid": {"form": "logits"}, "fsp": {"preparation_epochs": 1}}.get(name, {})
    with pytest.raises(UserError, match=rf"^{name}\.{field} must be {rule}.*, got "):
        METHODS[name](**{**others, field: value})


def test_values_at_the_edge_are_taken() -> None:
    dc.DKDConfig(alpha=0.0, beta=0.0), dc.FTConfig(rate=1.0), dc.CRDConfig(momentum=0.0), dc.ATConfig(p=1.0)
    dc.FSPConfig(preparation_epochs=0), dc.SPConfig(stage=-1), dc.KDConfig(final=0.0)
