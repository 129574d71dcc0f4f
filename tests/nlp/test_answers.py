"""The metric of question answering by hand, and the best span against a search over all."""

from __future__ import annotations

import numpy as np
import pytest

from bnn_itrd.nlp import exact_match, f1, normalise_answer, score_answers
from bnn_itrd.nlp.features import Window
from bnn_itrd.nlp.spans import answers, best_spans
from bnn_itrd.nlp.squad import Example


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat's,\that!", "cats hat"),
        ("A.B. an apple-a-day", "ab appleaday"),  # punctuation goes before articles
        ("theatre and a Thé", "theatre and thé"),  # articles are whole words
        ("an the a.", ""),
        ("5–4", "5–4"),  # noqa: RUF001  the official script keeps punctuation outside ASCII
    ],
)
def test_normalise_answer(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "golds", "em", "f"),
    [
        ("the Eiffel Tower.", ["Eiffel Tower"], 1, 1),
        ("in the year 1990", ["1990"], 0, 2 * (1 / 3) * 1 / (1 / 3 + 1)),
        ("to be or not to be", ["to be"], 0, 0.5),  # as multisets: P = 2/6, R = 1
        ("red hat", ["a blue hat", "the red hat!"], 1, 1),  # the best of the gold answers
        ("red hat", ["blue hat", "old red hat"], 0, 0.8),
        ("Rome", ["Paris"], 0, 0),
        ("the", ["a"], 1, 0),  # nothing left of both: equal, but no common word
        ("", ["Paris"], 0, 0),
    ],
)
def test_exact_match_and_f1_by_hand(prediction: str, golds: list[str], em: float, f: float) -> None:
    assert exact_match(prediction, golds) == em
    assert f1(prediction, golds) == pytest.approx(f)


def test_score_is_the_mean_over_all_questions() -> None:
    golds = {"1": ["Rome"], "2": ["red hat"], "3": ["1990"], "4": ["x"]}
    made = score_answers({"1": "Rome.", "2": "hat", "3": "in 1990"}, golds)  # nothing for 4
    assert made["em"] == pytest.approx(25.0)
    assert made["f1"] == pytest.approx(100 * (1 + 2 / 3 + 2 / 3) / 4)
    with pytest.raises(ValueError, match="answers is empty: it must have one question"):
        score_answers({}, {})


@pytest.mark.parametrize("length", [1, 2, 7, 23])
def test_best_spans_are_those_of_a_search_over_all(length: int) -> None:
    rng = np.random.default_rng(length)
    for ties in (False, True):
        start, end = rng.normal(size=(2, length))
        if ties:
            start, end = start.round(), end.round()
        for max_answer in (1, 3, 40):
            every = [(-(start[i] + end[j]), i, j) for i in range(length) for j in range(i, min(i + max_answer, length))]
            expected = [(i, j) for _, i, j in sorted(every)[:6]]
            made = best_spans(start, end, n_best=6, max_answer=max_answer)
            assert [(i, j) for i, j, _ in made] == expected
            assert all(s == pytest.approx(start[i] + end[j]) for i, j, s in made)


def test_the_best_span_of_all_windows_is_cut_from_the_context() -> None:
    context = "Über  den Wolken"  # two spaces: the text is the original's, not words joined again
    offsets = np.array([[0, 4], [6, 9], [10, 16]], dtype=np.int32)
    ids = np.zeros(7, dtype=np.int32)
    windows = [Window(0, ids, 3, offsets[:2], (0, 0)), Window(0, ids, 3, offsets[1:], (0, 0))]
    example = Example("x", "?", context, ("den",), 6)
    low = np.full(9, -9.0)  # longer than the window: padding

    def logits(**at: float) -> np.ndarray:
        made = low.copy()
        made[[int(k[1:]) for k in at]] = list(at.values())
        return made

    # [CLS], question and padding have high logits too: they are no answers.
    first = (logits(p0=50, p1=50, p3=1.0, p8=50), logits(p0=50, p4=1.5, p7=50))
    second = (logits(p3=1.0, p0=50), logits(p3=1.2, p4=0.0, p8=50))
    made = answers([example], windows, [first, second], n_best=3, max_answer=8)["x"]
    assert [(a.text, a.score) for a in made[:2]] == [("Über  den", 2.5), ("den", 2.2)]
    assert len({(a.start, a.end) for a in made}) == 3, "a span that two windows hold comes once"
    assert answers([example], windows, [first, second], n_best=1, max_answer=1)["x"][0].text == "den"
