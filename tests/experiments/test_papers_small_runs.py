"""The commands of a small table, run as they are printed: they fill the table that is printed."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
import yaml

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.experiments.papers import published
from bnn_itrd.runs import report

TRAIN = {"epochs": 1, "batch_size": 24, "lr": 0.05, "precision": "32-true"}
RECIPE = {
    "data": {"name": "cifar10", "per_class": 8, "crop_padding": 1},
    "network": {"name": "resnet8", "teacher": "resnet14"},
    "scheme": {"binary": False},
    "teacher_train": TRAIN,
    "train": TRAIN,
    "students": {"plain": {}, "kd": {"ce": 0.1, "kd": {"weight": 0.9}}},
    "log": {"tensorboard": False, "progress": False},
}
TABLE = {
    "title": "a table",
    "source": "a paper",
    "measure": "top-1 %",
    "seeds": 2,
    "recipe": "mini",
    "small": {"recipe": "mini", "columns": "all", "teacher": {"data.per_class": None, "teacher_train.epochs": 2}},
    "columns": {"pair": {}},
    "rows": {
        "Teacher": {"member": "teacher", "values": [90.0]},
        "Student": {"member": "plain", "values": [80.0]},
        "KD": {"member": "kd", "values": [85.0]},
    },
}


def test_the_printed_commands_fill_the_printed_table(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student's own record tells the given teacher, so that its row is filled wherever the teacher's folder goes."""
    monkeypatch.setitem(recipes._TABLES, "mini", ("", RECIPE))
    monkeypatch.setattr(published, "_trees", lambda: {"mini": TABLE})
    monkeypatch.setattr(report, "report_run", lambda *given, **named: None)  # exporting the teacher takes 10 seconds
    monkeypatch.chdir(tmp_path)

    def commands() -> list[list[str]]:
        capsys.readouterr()
        assert main(["table", "mini", "--scale=small", "--missing"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [shlex.split(line.replace("$DATA", str(tiny_npz)))[1:] for line in lines if not line.startswith("#")]

    printed = commands()
    assert [words[0] for words in printed] == ["train", "sweep"]
    for words in printed:
        assert main(words) == 0
    assert commands() == []
    assert main(["table", "mini", "--scale=small", "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)
    filled = {cell["row"]: [(ours["seeds"], ours["epochs"]) for ours in cell["ours"]] for cell in table["cells"]}
    assert filled == {"Teacher": [([0], 2)], "Student": [([0, 1], 1)], "KD": [([0, 1], 1)]}

    folder = tmp_path / "sweeps" / "small-tables"
    teacher = yaml.safe_load((folder / "teacher" / "config.yaml").read_text())
    with (folder / "teacher" / "metrics.csv").open() as file:
        scored = [float(row["top1"]) for row in csv.DictReader(file)]
    student = yaml.safe_load((folder / "mini" / "kd-s0" / "config.yaml").read_text())
    assert student["teacher"]["data"] == teacher["data"] and teacher["data"]["per_class"] is None
    assert student["teacher"]["network"] == "resnet14"
    assert student["teacher"]["top1"] == pytest.approx(scored[-1], abs=0.01)
    assert "teacher" not in yaml.safe_load((folder / "mini" / "plain-s0" / "config.yaml").read_text())

    # Without weights the teacher's record fills its cell, but no student can learn from it.
    (folder / "teacher" / "last.pt").unlink()
    assert commands() == []
    (folder / "mini" / "kd-s1" / "metrics.csv").unlink()
    assert [words[0] for words in commands()] == ["train", "sweep"]
