"""The config.yaml of a run's folder is a recipe: it continues the run, or runs it elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers import TINY, write_npz

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.nlp.options import squad_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    npz = write_npz(folder / "x.npz")
    given = [*TINY, f"--data.root={npz}", "--network.name=resnet8", "--train.epochs=1", "--students={a: {itrd: {}}}"]
    assert main(["run", "digits", *given, "--report=false", f"--out={folder / 'first'}"]) == 0
    return folder / "first"


def test_it_continues_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "a" / "last.pt").read_bytes()
    assert main(["run", str(run / "config.yaml"), "--report=false", "--log.progress=true"]) == 0
    assert "a: its training was already finished, at epoch 1 of 1" in capsys.readouterr().out
    assert (run / "a" / "last.pt").read_bytes() == before


def test_it_runs_elsewhere(run: Path, tmp_path: Path) -> None:
    assert main(["run", str(run / "config.yaml"), "--report=false", f"--out={tmp_path / 'second'}"]) == 0
    first, second = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (run, tmp_path / "second"))
    assert first == second and first["recipe"] == "digits"
    assert (tmp_path / "second" / "a" / "metrics.csv").read_text().splitlines()[0]


def test_its_networks_are_described(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that takes a recipe takes it."""
    assert main(["summary", str(run / "config.yaml")]) == 0
    assert "resnet8" in capsys.readouterr().out


def test_the_record_of_one_network(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(run / "a" / "config.yaml")]) == 2
    said = (
        f"{run / 'a' / 'config.yaml'} is the configuration of one network: give that of the whole run, "
        f"{run / 'config.yaml'}"
    )
    assert said in capsys.readouterr().err


def test_a_run_of_questions() -> None:
    recorded = recipes.read("squad-tiny") | {"recipe": "squad-tiny"}
    assert squad_config("run", "", recorded, [], extra={}) == squad_config(
        "run", "", recipes.read("squad-tiny"), [], extra={}
    )
