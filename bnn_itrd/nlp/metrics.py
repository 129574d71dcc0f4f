"""Exact match and F1 of SQuAD 1.1, as its official evaluation defines them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["exact_match", "f1", "normalise_answer", "score_answers"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Returns the text in lower case, without ASCII punctuation, without the words a, an and the, single-spaced.

    Punctuation outside ASCII (dashes, curly quotes) stays, as in SQuAD's official script. Rajpurkar et al., SQuAD:
    100,000+ Questions for Machine Comprehension of Text, 2016, sec. 6.1.

    >>> normalise_answer("The A.B."), normalise_answer("the-end")
    ('ab', 'theend')
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """Returns 1.0 if the predicted text equals one of the correct answers, both normalised, else 0.0.

    >>> exact_match("the Eiffel Tower", ["Eiffel tower."])
    1.0
    """
    given = normalise_answer(prediction)
    return float(any(given == normalise_answer(answer) for answer in answers))


def f1(prediction: str, answers: Iterable[str]) -> float:
    """Returns the F1 of a predicted text and the correct answer that it fits best, in [0, 1].

    F1 is 2 P R / (P + R). P is the share of the prediction's words that are in the answer, and R the share of the
    answer's words that are in the prediction; repeated words count each time. Both texts are normalised first. F1 is 0
    if they have no word in common, also if neither has a word.

    >>> f1("1912", ["in 1912"])
    0.6666666666666666
    """
    return max((_f1(prediction, answer) for answer in answers), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    given, gold = normalise_answer(prediction).split(), normalise_answer(answer).split()
    common = (Counter(given) & Counter(gold)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(given), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def score_answers(predictions: Mapping[str, str], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Returns exact match and F1 in percent, {"em": ..., "f1": ...}, as means over all questions.

    predictions: question id -> predicted text; answers: question id -> correct texts. A question without a prediction
    counts 0. Raises ValueError if `answers` is empty.

    >>> score_answers({"1": "the Eiffel Tower", "2": "1912"}, {"1": ["Eiffel Tower"], "2": ["in 1912"]})
    {'em': 50.0, 'f1': 83.33333333333333}
    """
    if not answers:
        raise ValueError("answers is empty: it must have one question or more")
    pairs = [(predictions[key], gold) for key, gold in answers.items() if key in predictions]
    return {
        "em": 100 * sum(exact_match(given, gold) for given, gold in pairs) / len(answers),
        "f1": 100 * sum(f1(given, gold) for given, gold in pairs) / len(answers),
    }
