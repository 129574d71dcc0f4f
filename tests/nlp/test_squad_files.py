"""SQuAD's JSON files: what is read, what is mended, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.squad import HAND_MADE, ZURICH, write_json

from bnn_itrd.errors import UserError
from bnn_itrd.nlp import read_squad


def test_reading_squad(tmp_path: Path) -> None:
    examples = read_squad(write_json(tmp_path / "a.json", HAND_MADE), training=True)
    assert len(examples) == 12
    for example in examples:
        assert example.start is not None and example.context[example.start :].startswith(example.answers[0])
    assert examples[1].answers == ("Zürichsee",) and examples[1].start == ZURICH.index("Zürichsee")


def damaged(change: str) -> Any:
    made = json.loads(json.dumps(HAND_MADE))
    question = made["data"][0]["paragraphs"][0]["qas"][1]
    if change == "moved":
        question["answers"][0]["answer_start"] += 5
    elif change == "twice":
        question["id"] = "q0.0"
    elif change == "unanswerable":
        question["answers"] = []
    elif change == "no text":
        question["answers"] = [{"answer_start": 3}]
    elif change == "no context":
        del made["data"][0]["paragraphs"][2]["context"]
    elif change == "empty":
        made["data"] = []
    elif change == "list":
        made = []
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("moved", "question 'q0.1' has the answer 'Zürichsee', which does not stand at its answer_start"),
        ("twice", "has two questions with the id 'q0.0'"),
        ("unanswerable", r"data\[0\].paragraphs\[0\].qas\[1\]: question 'q0.1' has no answer, as in SQuAD 2.0"),
        ("no text", r"qas\[1\].answers\[0\] must have 'text', a str"),
        ("no context", r"paragraphs\[2\] must have 'context', a str: give a file of SQuAD 1.1"),
        ("empty", "has no questions"),
        ("list", "must have 'data', a list"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_squad(write_json(tmp_path / "a.json", damaged(change)), training=True)


def test_small_shifts_are_mended_and_evaluation_reads_texts_alone(tmp_path: Path) -> None:
    made = json.loads(json.dumps(HAND_MADE))
    for shift in (-2, -1, 1, 2):
        question = made["data"][0]["paragraphs"][0]["qas"][0]
        question["answers"][0]["answer_start"] = ZURICH.index("Switzerland") + shift
        examples = read_squad(write_json(tmp_path / "a.json", made), training=True)
        assert examples[0].start == ZURICH.index("Switzerland")
    path = write_json(tmp_path / "b.json", damaged("moved"))
    assert read_squad(path, training=False)[1].start is None
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_squad(tmp_path / "c.json", training=True)
    with pytest.raises(UserError, match="there is no file .*: put SQuAD 1.1's train-v1.1.json"):
        read_squad(tmp_path / "none.json", training=True)
