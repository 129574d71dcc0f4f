"""The options of every distiller on the command line and in its help."""

from __future__ import annotations

import dataclasses

import pytest
from helpers.distilled_runs import dc

from bnn_itrd.cli import main
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.distillers import METHODS
from bnn_itrd.errors import UserError


def _students(*argv: str) -> dict[str, DistillConfig]:
    return run_config("run", "", {"students": {"plain": {}}}, argv, extra={})[0].students


def test_options_of_a_method() -> None:
    students = _students("--students.mine.crd.negatives", "64", "--students.mine.kd.final=0.5", "--students.mine.ce=2")
    assert students["mine"] == DistillConfig(ce=2.0, crd=dc.CRDConfig(negatives=64), kd=dc.KDConfig(final=0.5))
    assert students["plain"] == DistillConfig()
    every = _students(*(f"--students.{name}.{name}={{}}" for name in METHODS))
    assert {name: student.methods for name, student in every.items() if name != "plain"} == {
        name: {name: kind()} for name, kind in METHODS.items()
    }


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mine.crdd.negatives", "64", r"unknown field of students\.mine 'crdd'.*mean 'crd'"),
        ("mine.crd.negative", "64", r"unknown field of students\.mine\.crd 'negative'.*mean 'negatives'"),
        ("mine.reviewkdd", "{}", r"mean 'reviewkd'"),
        ("mine.crd.negatives", "many", r"students\.mine\.crd\.negatives must be int, got many"),
        ("mine.crd.momentum", "1", r"students\.mine\.crd\.momentum must be in \[0, 1\) .*, got 1"),
        ("mine.cc.form", "other", r"students\.mine\.cc\.form must be"),
        ("mine.kd", "5", r"students\.mine\.kd must hold fields \(weight, warmup_epochs, final, tau\), got 5"),
        ("mine.fitnet.stage", "1.5", r"^students\.mine\.fitnet\.stage must be int or null, got 1\.5$"),
        ("mine.ce", ".inf", r"students\.mine\.ce must be .*got inf"),
    ],
)
def test_bad_options_of_a_method(option: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _students(f"--students.{option}", value)


def test_help_names_every_method_and_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help", "all"])
    text = " ".join(capsys.readouterr().out.split())
    for name, kind in METHODS.items():
        assert f" {name}:" in text
        for field in (f.name for f in dataclasses.fields(kind)):
            assert f"{field} {getattr(kind(), field)}" in text, (name, field)
