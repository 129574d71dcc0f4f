"""Cuts each question and its context into windows of tokens, and pads windows to batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnn_itrd.data.seeds import mix_seed, shuffled
from bnn_itrd.errors import UserError
from bnn_itrd.nlp.config import SquadDataConfig
from bnn_itrd.nlp.squad import Example

__all__ = ["Batch", "Window", "eval_batches", "make_windows", "pad_windows", "train_batches"]


@dataclass(frozen=True)
class Window:
    """A window of tokens, `[CLS] question [SEP] part of the context [SEP]`, without padding.

    Args:
        example: index of the question in the list of questions
        ids: token ids, (l,) int32
        context: position in `ids` of the first token of the context
        offsets: [start, end) of each context token in the text of the context, in characters, (c, 2) int32
        target: positions in `ids` of the answer's first and last token; (0, 0), which is [CLS], if the window does not
            have the whole answer
    """

    example: int
    ids: np.ndarray[Any, Any]
    context: int
    offsets: np.ndarray[Any, Any]
    target: tuple[int, int]


class Batch(NamedTuple):
    """A batch of b windows of tokens, padded to l tokens, the length of the longest.

    Args:
        ids: token ids, (b, l) int64
        mask: 1 for a token, 0 for padding, (b, l) int64
        segments: 1 for the context and the last [SEP], else 0, (b, l) int64
        start, end: positions of the answer's first and last token, (b,) int64
        rows: positions in the flattened (b * l) batch of the tokens that ITRD compares, without padding, (n,) int64
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor
    start: Tensor
    end: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in self))


def make_windows(examples: Sequence[Example], tokenizer: Any, config: SquadDataConfig) -> list[Window]:
    """Cuts the questions with their contexts into windows of tokens, and returns them in the questions' order.

    Each question has one window or more: a window starts every `doc_stride` tokens of the context until one reaches its
    end. Raises UserError if the tokenizer gives no character offsets, or if a context has no token.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} does not tell where in the text a token stands: use a fast tokenizer of "
            "transformers (BertTokenizerFast)"
        )
    contexts = list(dict.fromkeys(example.context for example in examples))
    encoded = {text: _encode(tokenizer, text) for text in contexts}
    windows = []
    for index, example in enumerate(examples):
        question = _encode(tokenizer, example.question)[0][: config.max_question]
        tokens, offsets = encoded[example.context]
        if len(tokens) == 0:
            raise UserError(f"question {example.id!r} has a context without a token: remove it from the file")
        head = np.concatenate([[tokenizer.cls_token_id], question, [tokenizer.sep_token_id]]).astype(np.int32)
        tail = np.array([tokenizer.sep_token_id], dtype=np.int32)
        room = config.max_length - len(head) - len(tail)
        answer = _answer_tokens(example, offsets)
        for low in _starts(len(tokens), room, config.doc_stride):
            high = min(low + room, len(tokens))
            target = (0, 0)
            if answer is not None and low <= answer[0] and answer[1] < high:
                target = (len(head) + answer[0] - low, len(head) + answer[1] - low)
            ids = np.concatenate([head, tokens[low:high], tail])
            windows.append(Window(index, ids, len(head), offsets[low:high], target))
    return windows


def _encode(tokenizer: Any, text: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns a text's token ids, (c,), and the [start, end) of each in characters, (c, 2); no special tokens."""
    # verbose=False, because the tokenizer would warn of a long context, which is cut into windows anyway.
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = np.array(made["offset_mapping"], dtype=np.int32).reshape(-1, 2)
    return np.array(made["input_ids"], dtype=np.int32), offsets


def _starts(length: int, room: int, stride: int) -> Iterator[int]:
    """Yields where in a context of `length` tokens its windows of `room` tokens start, `stride` tokens apart."""
    low = 0
    yield low
    while low + room < length:
        low += stride
        yield low


def _answer_tokens(example: Example, offsets: np.ndarray[Any, Any]) -> tuple[int, int] | None:
    """Returns the numbers of the first and last context token that share a character with the answer, or None."""
    if example.start is None:
        return None
    start, end = example.start, example.start + len(example.answers[0])
    first = int(np.searchsorted(offsets[:, 1], start, side="right"))
    last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
    return (first, last) if first <= last else None


def pad_windows(windows: Sequence[Window], *, pad_id: int, max_rows: int | None = None, seed: int = 0) -> Batch:
    """Returns the windows as one batch, padded with `pad_id` to the longest.

    `Batch.rows` has all tokens but the padding; if there are more than `max_rows`, this many are drawn at random with
    `seed`. The padding is found on the CPU, because on a GPU the training would wait for the number of tokens.
    """
    length = max(len(window.ids) for window in windows)
    ids = np.full((len(windows), length), pad_id, dtype=np.int64)
    mask, segments = np.zeros_like(ids), np.zeros_like(ids)
    for i, window in enumerate(windows):
        size = len(window.ids)
        ids[i, :size], mask[i, :size], segments[i, window.context : size] = window.ids, 1, 1
    rows = torch.from_numpy(np.flatnonzero(mask))
    if max_rows is not None and len(rows) > max_rows:
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:max_rows]
        rows = rows[drawn.sort().values]
    target = torch.tensor([window.target for window in windows])
    return Batch(
        torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(segments), target[:, 0], target[:, 1], rows
    )


def train_batches(
    windows: Sequence[Window], batch_size: int, *, pad_id: int, max_rows: int | None, seed: int, epoch: int
) -> Iterator[Batch]:
    """Yields the batches of an epoch, in a random order that depends only on the seed and the epoch.

    A last batch with fewer than `batch_size` windows is left out. `max_rows` limits `Batch.rows` (see `pad_windows`).
    """
    order = shuffled(len(windows), seed=seed, epoch=epoch).tolist()
    for step, first in enumerate(range(0, len(order) - batch_size + 1, batch_size)):
        chosen = [windows[i] for i in order[first : first + batch_size]]
        yield pad_windows(chosen, pad_id=pad_id, max_rows=max_rows, seed=mix_seed(seed, epoch, 3, step))


def eval_batches(windows: Sequence[Window], batch_size: int, *, pad_id: int) -> Iterator[tuple[list[int], Batch]]:
    """Yields (indices of the windows, batch) for all windows, the longest first, so that there is little padding."""
    order = sorted(range(len(windows)), key=lambda i: (-len(windows[i].ids), i))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        yield chosen, pad_windows([windows[i] for i in chosen], pad_id=pad_id)
