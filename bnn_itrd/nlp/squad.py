"""Reads SQuAD 1.1's JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError

__all__ = ["FILES", "Example", "read_squad"]

FILES = {"train": "train-v1.1.json", "dev": "dev-v1.1.json"}
# In some copies of the data an answer's position is wrong by a character or two.
_SLACK = 2


@dataclass(frozen=True)
class Example:
    """A question about a context. answers: the gold texts; start: the first one's position in characters.

    `context[start : start + len(answers[0])] == answers[0]`; start is None where the file's position does not hold it.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    start: int | None


def read_squad(path: Path, *, training: bool) -> list[Example]:
    """Returns the questions of a SQuAD 1.1 file, in its order.

    training: every answer must be at its `answer_start` or up to two characters from it, which is corrected; evaluation
    reads only the texts. Raises UserError where there is no file, no JSON, another structure (the message says where),
    a question without an answer (SQuAD 2.0), an id twice, an answer at another position, or no question.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: SQuAD 1.1 is {FILES['train']} and {FILES['dev']} in the folder --data.root")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    examples = list(_examples(tree, path))
    if not examples:
        raise UserError(f"{path} holds no question: is this SQuAD 1.1?")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise UserError(f"{path}: the question id {example.id!r} is given twice")
        seen.add(example.id)
        if training and example.start is None:
            raise UserError(
                f"{path}: question {example.id!r}: the context does not hold {example.answers[0]!r} at its answer_start"
            )
    return examples


def _get(tree: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(tree, dict) or not isinstance(tree.get(key), kind):
        raise UserError(f"{where} must have {key!r}, a {kind.__name__}: is this SQuAD 1.1?")
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
        raise UserError(f"{where}: question {name!r} has no answer: SQuAD 2.0 is not supported, give version 1.1")
    texts = tuple(_get(answer, "text", str, f"{where}.answers[{i}]") for i, answer in enumerate(answers))
    start = _place(context, texts[0], _get(answers[0], "answer_start", int, f"{where}.answers[0]"))
    return Example(name, _get(question, "question", str, where), context, texts, start)


def _place(context: str, text: str, start: int) -> int | None:
    """Returns the text's position, up to two characters from the given one, or None."""
    for shift in sorted(range(-_SLACK, _SLACK + 1), key=abs):
        at = start + shift
        if text and at >= 0 and context.startswith(text, at):
            return at
    return None
