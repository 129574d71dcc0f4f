"""A whole run of question answering: what it learns, how it continues, and what it shares with other runs."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.squad import EPOCHS, HAND_MADE, TURING, arguments, write_json

from bnn_itrd.cli import main
from bnn_itrd.experiments.papers.runs import find_runs
from bnn_itrd.nlp import read_squad
from bnn_itrd.nlp.bert import load_bert, load_tokenizer
from bnn_itrd.runs.identity import weights_hash


@pytest.fixture(scope="module")
def road(squad: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, with the network out of reach."""
    out = tmp_path_factory.mktemp("road")

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was touched")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        assert main(arguments(squad, bert, out)) == 0
    return out


def test_the_road_learns_the_hand_made_questions(road: Path, squad: Path) -> None:
    comparison = json.loads((road / "comparison.json").read_text())
    assert comparison["task"] == "squad"
    assert (comparison["dataset"]["train"], comparison["dataset"]["test"]) == (60, 12)
    rows = {row["name"]: row for row in comparison["models"]}
    assert list(rows) == ["teacher", "s2", "s2-itrd"]
    assert [row["layers"] for row in rows.values()] == [4, 2, 2]
    assert rows["s2-itrd"]["teacher_layers"] == [2, 4] and rows["s2"]["teacher_layers"] is None
    golds = {q["id"]: q["answers"] for p in HAND_MADE["data"][0]["paragraphs"] for q in p["qas"]}
    for name, row in rows.items():
        assert row["em_last"] == row["f1_last"] == 100.0, name
        predictions = json.loads((road / name / "predictions.json").read_text())
        assert predictions == {key: answers[0]["text"] for key, answers in golds.items()}, name
        best = json.loads((road / name / "nbest.json").read_text())
        assert all(len(found) == 20 and found[0]["text"] == predictions[key] for key, found in best.items())
        assert all(a["score"] >= b["score"] for found in best.values() for a, b in itertools.pairwise(found))
        metrics = (road / name / "metrics.csv").read_text().splitlines()
        assert len(metrics) == 1 + EPOCHS[name]
        expected = ["loss_ce"] if name != "s2-itrd" else ["loss_ce", "loss_kd", "loss_itrd"]
        assert [c for c in metrics[0].split(",") if c.startswith("loss_")] == expected
        assert (road / name / "environment.json").is_file() and (road / name / "config.yaml").is_file()
    assert yaml.safe_load((road / "config.yaml").read_text())["task"] == "squad"
    # What the tables of papers read of it.
    found = {run.member["name"]: run for run in find_runs([road])}
    assert {name: run.member["network"]["name"] for name, run in found.items()} == {
        name: row["network"] for name, row in rows.items()
    }
    assert all(run.scores == {"em": 100.0, "f1": 100.0} and run.epochs == run.of for run in found.values())
    teacher = found["s2-itrd"].teacher
    assert teacher is not None and (teacher.network, found["teacher"].teacher) == ("bert-4", None)
    assert teacher.data is not None and teacher.data["name"] == "squad"


def test_a_saved_student_opens_in_transformers_and_answers_alike(road: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.BertForQuestionAnswering.from_pretrained(road / "s2-itrd" / "model", local_files_only=True)
    tokenizer = load_tokenizer(road / "s2-itrd" / "model")
    asked = ("Where was he born?", TURING)
    pair = tokenizer(*asked, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True)
    offsets = pair.pop("offset_mapping")[0]
    with torch.no_grad():
        out = model.eval()(**pair)
    i, j = int(out.start_logits.argmax()), int(out.end_logits.argmax())
    assert TURING[offsets[i][0] : offsets[j][1]] == "London"


def test_the_same_command_again_changes_nothing_and_another_is_refused(
    road: Path, squad: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in road.rglob("last.pt")}
    rows = (road / "s2" / "metrics.csv").read_bytes()
    assert main(arguments(squad, bert, road)) == 0
    assert len(before) == 3 and all(p.read_bytes() == content for p, content in before.items())
    assert (road / "s2" / "metrics.csv").read_bytes() == rows
    capsys.readouterr()
    assert main(arguments(squad, bert, road, "--train.lr=1e-3")) == 2
    assert "train.lr: 0.004 there, 0.001 given" in capsys.readouterr().err
    other = json.loads(json.dumps(HAND_MADE))
    other["data"][0]["paragraphs"][2]["qas"][3]["question"] = "What is red?"
    write_json(tmp_path / "train-v1.1.json", other)
    write_json(tmp_path / "dev-v1.1.json", other)
    assert main(arguments(tmp_path, bert, road)) == 2
    assert "sha256.train" in capsys.readouterr().err
    assert main(["compare", str(road)]) == 2
    assert "another task (squad)" in capsys.readouterr().err


def test_a_run_that_was_killed_continues_exactly(
    road: Path, squad: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnn_itrd.nlp import training

    seen = 0
    plain = training.evaluate_answers

    def killed(*given: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt
        return plain(*given, **named)

    more = ["--member=s2-itrd", f"--teacher={road}"]
    command = ["train", *arguments(squad, bert, tmp_path, *more)[1:]]
    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate_answers", killed)
        assert main(command) == 130
    assert len((tmp_path / "s2-itrd" / "metrics.csv").read_text().splitlines()) == 5
    assert main(command) == 0
    there, here = (torch.load(p / "s2-itrd" / "last.pt", weights_only=True) for p in (road, tmp_path))
    assert there["identity"]["teacher_sha256"] == here["identity"]["teacher_sha256"]
    for name, value in there["objective"].items():
        assert torch.equal(value, here["objective"][name]), name
    assert not (tmp_path / "teacher" / "last.pt").exists() and not (tmp_path / "s2").exists()


def test_one_student_takes_the_teacher_of_its_folder(
    road: Path, squad: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *arguments(squad, bert, tmp_path, "--member=s2", "--train.epochs=1")[1:]]
    assert main(command) == 2
    assert "give one with --teacher PATH" in capsys.readouterr().err
    shutil.copytree(road / "teacher" / "model", tmp_path / "teacher" / "model")
    assert main(command) == 0
    identity = torch.load(tmp_path / "s2" / "last.pt", weights_only=True)["identity"]
    assert identity["teacher_sha256"] == weights_hash(load_bert(road / "teacher" / "model"))
    assert not (tmp_path / "comparison.json").exists()


def test_the_tiny_recipe_brings_its_own_questions(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    assert main([
        "run", "squad-tiny", f"--out={tmp_path}", "--train.epochs=1", "--teacher_train.epochs=1",
        "--students={t1: {layers: 1, itrd: {max_tokens: 64}}}", "--fabric.accelerator=cpu", "--fabric.threads=1",
        "--log.tensorboard=false", "--log.progress=false",
    ]) == 0  # fmt: skip
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["dataset"]["name"] == "tiny" and comparison["dataset"]["train"] == 768
    assert all(read_squad(tmp_path / "tiny" / name, training=True) for name in ("train-v1.1.json", "dev-v1.1.json"))
