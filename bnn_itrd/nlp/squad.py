"""Reads the JSON files of the data set SQuAD 1.1, questions about paragraphs of Wikipedia."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError

__all__ = ["FILES", "Example", "read_squad"]

FILES = {"train": "train-v1.1.json", "dev": "dev-v1.1.json"}
# The largest error of an answer's position that is corrected: some copies of the data are off by a character or two.
_SLACK = 2


@dataclass(frozen=True)
class Example:
    """A question about a text, the context.

    `answers` are the correct answers, and `start` is where the first of them begins in the context, in characters:
    `context[start : start + len(answers[0])] == answers[0]`. It is None if the answer is not where the file says.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    start: int | None


def read_squad(path: Path, *, training: bool) -> list[Example]:
    """Returns the questions of a SQuAD 1.1 file, in its order.

    An answer may stand up to two characters away from its `answer_start`, which is corrected. With `training`, an
    answer that stands elsewhere is an error; the evaluation reads only the answers' texts.
    Raises UserError if the file is missing, is not JSON, or has another structure; also if it has no questions, has the
    same id twice, or has a question without an answer (as SQuAD 2.0 does).
    """
    if not path.is_file():
        raise UserError(
            f"there is no file {path}: put SQuAD 1.1's {FILES['train']} and {FILES['dev']} into one folder and give it "
            "as --data.root"
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}): give a file of SQuAD 1.1") from error
    examples = list(_examples(tree, path))
    if not examples:
        raise UserError(f"{path} has no questions: give a file of SQuAD 1.1")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise UserError(f"{path} has two questions with the id {example.id!r}: remove one of them")
        seen.add(example.id)
        if training and example.start is None:
            raise UserError(
                f"{path}: question {example.id!r} has the answer {example.answers[0]!r}, which does not stand at its "
                "answer_start in the context: correct answer_start, or remove the question"
            )
    return examples


def _get(tree: Any, key: str, kind: type, where: str) -> Any:
    """Returns tree[key], which must be a `kind`; raises UserError, saying where in the file, if it is not."""
    if not isinstance(tree, dict) or not isinstance(tree.get(key), kind):
        raise UserError(f"{where} must have {key!r}, a {kind.__name__}: give a file of SQuAD 1.1")
    return tree[key]


def _examples(tree: Any, path: Path) -> Iterator[Example]:
    for a, article in enumerate(_get(tree, "data", list, str(path))):
        for p, paragraph in enumerate(_get(article, "paragraphs", list, f"{path}: data[{a}]")):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            context = _get(paragraph, "context", str, where)
            for q, question in enumerate(_get(paragraph, "qas", list, where)):
                yield _example(question, context, f"{where}.qas[{q}]")


def _example(question: Any, context: str, where: str) -> Example:
    name = _get(question, "id", str, where)
    answers = _get(question, "answers", list, where)
    if not answers or question.get("is_impossible"):
        raise UserError(f"{where}: question {name!r} has no answer, as in SQuAD 2.0: give a file of SQuAD 1.1")
    texts = tuple(_get(answer, "text", str, f"{where}.answers[{i}]") for i, answer in enumerate(answers))
    start = _place(context, texts[0], _get(answers[0], "answer_start", int, f"{where}.answers[0]"))
    return Example(name, _get(question, "question", str, where), context, texts, start)


def _place(context: str, text: str, start: int) -> int | None:
    """Returns the position of a text in the context: the nearest to `start`, at most two characters away, or None."""
    for shift in sorted(range(-_SLACK, _SLACK + 1), key=abs):
        at = start + shift
        if text and at >= 0 and context.startswith(text, at):
            return at
    return None
