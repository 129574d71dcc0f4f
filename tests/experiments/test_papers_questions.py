"""Runs of question answering in the table of SQuAD: exact match and F1 by what their own folders say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bnn_itrd import recipes
from bnn_itrd.experiments.papers.commands import missing_tasks
from bnn_itrd.experiments.papers.published import published_table
from bnn_itrd.experiments.papers.runs import find_runs
from bnn_itrd.experiments.papers.view import show_table
from bnn_itrd.nlp.options import squad_config

TABLE = published_table("itrd-3-squad")


def write_member(
    folder: Path, member: str, em: float, f1: float, *words: str, width: int = 768, layers: int | None = None
) -> None:
    """A member's files, as a training writes them, of BERT-base."""
    config = squad_config("run", "", recipes.read("squad"), words, extra={})[0]
    folder.mkdir(parents=True)
    facts = {"sha256": {"train": "a", "dev": "b"}, "tokens": 30522}
    (folder / "config.yaml").write_text(yaml.safe_dump(config.identity(member) | facts))
    epochs = (config.teacher_train if member == "teacher" else config.train).epochs
    (folder / "metrics.csv").write_text(f"epoch,loss,split,em,f1\n{epochs},1.0,test,{em},{f1}\n")
    (folder / "model").mkdir()
    layers = layers or (12 if member == "teacher" else config.students[member].layers)
    (folder / "model" / "config.json").write_text(json.dumps({"num_hidden_layers": layers, "hidden_size": width}))


def filled(folder: Path) -> dict[tuple[str, str], list[tuple[float, tuple[int, ...], tuple[str, ...]]]]:
    table = show_table(TABLE, find_runs([folder]))
    return {(c.row, c.column): [(e.mean, e.seeds, e.differs) for e in found] for c, found in table.filled}


def test_a_finished_run_fills_both_columns(tmp_path: Path) -> None:
    write_member(tmp_path / "a" / "teacher", "teacher", 80.5, 88.0)
    write_member(tmp_path / "a" / "any", "t6-itrd", 79.0, 87.0)
    write_member(tmp_path / "a" / "name", "t3-textbrewer", 75.0, 84.0, "--train.epochs=2", "--seed=1")
    assert filled(tmp_path) == {
        ("Teacher (BERT)", "EM"): [(80.5, (0,), ())],
        ("Teacher (BERT)", "F1"): [(88.0, (0,), ())],
        ("T6 ITRD", "EM"): [(79.0, (0,), ())],
        ("T6 ITRD", "F1"): [(87.0, (0,), ())],
        ("T3 TextBrewer", "EM"): [(75.0, (1,), ("epochs 2 (30)",))],
        ("T3 TextBrewer", "F1"): [(84.0, (1,), ("epochs 2 (30)",))],
    }
    left = [task.command.split()[4] for task in missing_tasks(TABLE, find_runs([tmp_path]))]
    assert left == ["t6-distilbert", "t6-textbrewer", "t3-itrd"]
    lines = show_table(TABLE, find_runs([tmp_path])).lines()
    assert any(line.split() == ["T6", "ITRD", "81.5", "88.5"] for line in lines)
    assert any(line.split() == ["ours", "79.0", "87.0"] or line.split() == ["ours", "79.00", "87.00"] for line in lines)


@pytest.mark.parametrize(
    ("member", "words", "sizes"),
    [
        ("t6", (), {}),  # no method of the table
        ("t6-itrd", ("--students.t6-itrd.itrd.beta_mi=0",), {}),
        ("t6-itrd", ("--students.t6-itrd.hidden.mse=1",), {}),
        ("t6-textbrewer", ("--students.t6-textbrewer.hidden.mmd=0",), {}),
        ("t6-itrd", ("--data.name=tiny",), {}),
        ("t6-itrd", (), {"width": 1024}),
        ("teacher", ("--random_init=true",), {}),
        ("teacher", (), {"layers": 24}),
    ],
)
def test_another_method_or_another_bert_fills_no_cell(
    member: str, words: tuple[str, ...], sizes: dict[str, int], tmp_path: Path
) -> None:
    write_member(tmp_path / member, member, 79.0, 87.0, *words, **sizes)
    if member != "teacher":
        write_member(tmp_path / "teacher", "teacher", 80.5, 88.0)
    assert {row for row, _ in filled(tmp_path)} <= ({"Teacher (BERT)"} if member != "teacher" else set())


def test_the_teacher_of_a_student_is_told_by_its_folder_or_by_the_comparison(tmp_path: Path) -> None:
    """One that was given has no folder in the run."""
    write_member(tmp_path / "a" / "t6-itrd", "t6-itrd", 79.0, 87.0)
    assert filled(tmp_path) == {}
    comparison = {"task": "squad", "models": [{"name": "teacher", "network": "bert-12"}]}
    (tmp_path / "a" / "comparison.json").write_text(json.dumps(comparison))
    assert {*filled(tmp_path)} == {("T6 ITRD", "EM"), ("T6 ITRD", "F1")}
    comparison["models"] = [{"name": "teacher", "network": "bert-24"}]
    (tmp_path / "a" / "comparison.json").write_text(json.dumps(comparison))
    assert filled(tmp_path) == {}
