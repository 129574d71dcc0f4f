"""Turns start and end logits into answers: the spans of tokens with the highest scores, and their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnn_itrd.nlp.features import Window
from bnn_itrd.nlp.squad import Example

__all__ = ["Answer", "answers", "best_spans"]


@dataclass(frozen=True)
class Answer:
    """An answer to a question: the span [start, end) of the context, in characters, and its text.

    `score` is the sum of the start logit and the end logit.
    """

    text: str
    score: float
    start: int
    end: int


def best_spans(
    start: np.ndarray[Any, Any], end: np.ndarray[Any, Any], *, n_best: int, max_answer: int
) -> list[tuple[int, int, float]]:
    """Returns the `n_best` best spans of tokens as (first token, last token, score), the best first.

    start, end: logits of the context's tokens, (c,) each. The score of a span (i, j) is start[i] + end[j]. All spans of
    at most `max_answer` tokens are compared. Of equal scores, the earlier span comes first, then the shorter one.

    >>> best_spans(np.array([0.0, 2.0]), np.array([1.0, 3.0]), n_best=2, max_answer=2)
    [(1, 1, 5.0), (0, 1, 3.0)]
    """
    count = len(start)
    width = min(max_answer, count)
    last = np.arange(count)[:, None] + np.arange(width)  # (c, width): the end j of each (start, length - 1)
    scores = np.where(last < count, start[:, None] + end[np.minimum(last, count - 1)], -np.inf).ravel()
    order = np.argsort(-scores, kind="stable")[:n_best]
    return [(int(k) // width, int(last.flat[k]), float(scores[k])) for k in order if int(last.flat[k]) < count]


def answers(
    examples: Sequence[Example],
    windows: Sequence[Window],
    logits: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]],
    *,
    n_best: int,
    max_answer: int,
) -> dict[str, list[Answer]]:
    """Returns the `n_best` best answers to each question, question id -> answers, the best first.

    `logits` has the start and the end logits of each window's tokens, (l,) each; padding may follow. A question's
    answers come from all its windows; a span of text that is found in several is listed once, with its best score. The
    text is cut out of the context, so that it is spelt as there. An answer has at most `max_answer` tokens.
    """
    found: dict[str, dict[tuple[int, int], float]] = {example.id: {} for example in examples}
    for window, (start, end) in zip(windows, logits, strict=True):
        inside = slice(window.context, window.context + len(window.offsets))
        spans = found[examples[window.example].id]
        for i, j, score in best_spans(start[inside], end[inside], n_best=n_best, max_answer=max_answer):
            place = (int(window.offsets[i, 0]), int(window.offsets[j, 1]))
            spans[place] = max(score, spans.get(place, -np.inf))
    result = {}
    for example in examples:
        best = sorted(found[example.id].items(), key=lambda item: (-item[1], item[0]))[:n_best]
        result[example.id] = [Answer(example.context[a:b], score, a, b) for (a, b), score in best]
    return result
