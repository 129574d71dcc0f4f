"""A small question-answering data set in SQuAD's form, batches of it, and the arguments of a run that learns it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bnn_itrd.nlp.bert import load_tokenizer
from bnn_itrd.nlp.config import (
    SquadDataConfig,
)
from bnn_itrd.nlp.features import Batch, make_windows, pad_windows
from bnn_itrd.nlp.squad import Example


def tree(*paragraphs: tuple[str, list[tuple[str, str]]]) -> dict[str, Any]:
    """Returns paragraphs (context, [(question, answer)]) as a nested dict in the format of SQuAD's files."""
    made = []
    for p, (context, pairs) in enumerate(paragraphs):
        qas = [
            {"id": f"q{p}.{i}", "question": q, "answers": [{"text": a, "answer_start": context.index(a)}]}
            for i, (q, a) in enumerate(pairs)
        ]
        made.append({"context": context, "qas": qas})
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": made}]}


ZURICH = "Zürich lies in Switzerland. Its lake, the Zürichsee, is 88 km² large; ETH was founded in 1855."
TURING = "Alan Turing was born in London in 1912. He worked at Bletchley Park and liked to run."
APPLES = "The red apples cost 3 euros. The green pears cost 5 euros, but the plums are free."
HAND_MADE = tree(
    (ZURICH, [("Where is the city?", "Switzerland"), ("Which lake is it?", "Zürichsee"), ("How large?", "88 km²"),
              ("When was ETH founded?", "1855")]),
    (TURING, [("Who is this about?", "Alan Turing"), ("Where was he born?", "London"), ("When was he born?", "1912"),
              ("Where did he work?", "Bletchley Park")]),
    (APPLES, [("What costs 3 euros?", "The red apples"), ("What costs 5 euros?", "green pears"),
              ("What do pears cost?", "5 euros"), ("What is free?", "plums")]),
)  # fmt: skip


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


SMALL = SquadDataConfig(max_length=64, doc_stride=16, max_question=16, n_best=5, max_answer=8)


def batch_of(bert: Path, questions: list[Example], *, max_rows: int | None = None, seed: int = 0) -> Batch:
    windows = make_windows(questions, load_tokenizer(bert), SMALL)
    return pad_windows([windows[i] for i in (0, 5, 9)], pad_id=0, max_rows=max_rows, seed=seed)


EPOCHS = {"teacher": 24, "s2": 18, "s2-itrd": 18}


def arguments(root: Path, bert: Path, out: Path, *more: str) -> list[str]:
    students = "{s2: {layers: 2}, s2-itrd: {layers: 2, kd: {tau: 4.0}, itrd: {max_tokens: 64}}}"
    training = [
        f"--{name}.{field}"
        for name, epochs in (("train", EPOCHS["s2"]), ("teacher_train", EPOCHS["teacher"]))
        for field in (f"epochs={epochs}", "batch_size=12", "lr=4e-3")
    ]
    return [
        "run", "squad", f"--data.root={root}", f"--pretrained={bert}", "--random_init=true", f"--out={out}",
        "--data.max_length=64", "--data.doc_stride=16", "--data.max_question=16", "--data.max_answer=8",
        "--fabric.accelerator=cpu", "--fabric.threads=1", "--log.tensorboard=false", "--log.progress=false",
        *training, f"--students={students}", *more,
    ]  # fmt: skip
