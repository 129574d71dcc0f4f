"""Windows of tokens over a context, the answers in them, and the batches made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.squad import SMALL, ZURICH, batch_of

from bnn_itrd.errors import UserError
from bnn_itrd.nlp.bert import load_tokenizer
from bnn_itrd.nlp.config import (
    SquadDataConfig,
)
from bnn_itrd.nlp.features import make_windows, pad_windows, train_batches
from bnn_itrd.nlp.squad import Example


def test_a_short_context_is_one_window_as_the_tokenizer_makes_it(bert: Path, questions: list[Example]) -> None:
    tokenizer = load_tokenizer(bert)
    windows = make_windows(questions, tokenizer, SMALL)
    assert [w.example for w in windows] == list(range(12))
    for example, window in zip(questions, windows, strict=True):
        pair = tokenizer(example.question, example.context, return_token_type_ids=True)
        assert window.ids.tolist() == pair["input_ids"]
        assert example.start is not None
        ends = (example.start, example.start + len(example.answers[0]) - 1)
        assert window.target == tuple(pair.char_to_token(0, place, sequence_index=1) for place in ends)
        batch = pad_windows([window], pad_id=0)
        assert batch.segments[0].tolist() == pair["token_type_ids"]
        assert 1 not in window.ids, "every word of the hand-made file is in its vocabulary"


def test_windows_cover_a_long_context_and_map_the_answer(bert: Path, questions: list[Example]) -> None:
    tokenizer = load_tokenizer(bert)
    short = SquadDataConfig(max_length=20, doc_stride=4, max_question=5, max_answer=8)
    windows = make_windows(questions, tokenizer, short)
    for index, example in enumerate(questions):
        own = [w for w in windows if w.example == index]
        tokens = tokenizer(example.context, add_special_tokens=False, return_offsets_mapping=True)
        offsets = [tuple(o) for o in tokens["offset_mapping"]]
        question = tokenizer(example.question, add_special_tokens=False)["input_ids"][:5]
        starts = [offsets.index(tuple(w.offsets[0])) for w in own]
        assert len(own) > 2 and starts == list(range(0, 4 * len(own), 4))
        assert {tuple(o) for w in own for o in w.offsets} == set(offsets), "no token is lost"
        held = 0
        for window, low in zip(own, starts, strict=True):
            inside = tokens["input_ids"][low : low + len(window.offsets)]
            assert window.ids.tolist() == [2, *question, 3, *inside, 3] and len(window.ids) <= 20
            text = [example.context[a:b] for a, b in window.offsets]
            assert example.start is not None
            end = example.start + len(example.answers[0])
            whole = window.offsets[0][0] <= example.start and end <= window.offsets[-1][1]
            assert (window.target != (0, 0)) == whole
            if whole:
                held += 1
                i, j = (place - window.context for place in window.target)
                assert example.context[window.offsets[i][0] : window.offsets[j][1]] == example.answers[0], text
        assert held >= 1


def test_answers_inside_a_token_and_without_one(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    inside = Example("a", "Which lake?", ZURICH, ("ETH was found",), ZURICH.index("ETH"))
    window = make_windows([inside], tokenizer, SMALL)[0]
    i, j = (place - window.context for place in window.target)
    assert ZURICH[window.offsets[i][0] : window.offsets[j][1]] == "ETH was founded", "a token that is cut counts whole"
    space = Example("b", "Which lake?", ZURICH, (" ",), ZURICH.index(" lies"))
    assert make_windows([space], tokenizer, SMALL)[0].target == (0, 0)
    with pytest.raises(UserError, match="question 'c' has a context without a token"):
        make_windows([Example("c", "Which lake?", " ", ("x",), None)], tokenizer, SMALL)
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(UserError, match="Slow does not tell where in the text"):
        make_windows([inside], slow, SMALL)


def test_rows_are_the_tokens_that_are_not_padding(bert: Path, questions: list[Example]) -> None:
    batch = batch_of(bert, questions)
    size = batch.ids.shape[1]
    assert batch.mask.sum() < batch.mask.numel(), "the test needs padding"
    expected = [b * size + t for b in range(3) for t in range(size) if batch.ids[b, t] != 0]
    assert batch.rows.tolist() == expected
    few = batch_of(bert, questions, max_rows=7, seed=1).rows
    assert len(few) == 7 and set(few.tolist()) < set(expected)
    assert torch.equal(few, batch_of(bert, questions, max_rows=7, seed=1).rows)
    assert not torch.equal(few, batch_of(bert, questions, max_rows=7, seed=2).rows)
    assert batch_of(bert, questions, max_rows=len(expected)).rows.tolist() == expected


def test_an_epoch_of_batches_is_a_function_of_seed_and_epoch(bert: Path, questions: list[Example]) -> None:
    windows = make_windows(questions, load_tokenizer(bert), SMALL)

    def epoch(seed: int, number: int) -> list[list[int]]:
        made = train_batches(windows, 5, pad_id=0, max_rows=9, seed=seed, epoch=number)
        return [batch.ids.flatten().tolist() + batch.rows.tolist() for batch in made]

    assert epoch(0, 0) == epoch(0, 0) and len(epoch(0, 0)) == 2, "12 windows: two full batches of 5"
    assert epoch(0, 0) != epoch(0, 1) and epoch(0, 0) != epoch(1, 0)
