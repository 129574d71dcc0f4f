"""Lets a network answer the dev questions, and scores the answers by exact match and F1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bnn_itrd.models import evaluation_mode
from bnn_itrd.nlp.data import SquadData
from bnn_itrd.nlp.features import eval_batches
from bnn_itrd.nlp.metrics import score_answers
from bnn_itrd.nlp.objective import run_bert
from bnn_itrd.nlp.spans import Answer, answers

__all__ = ["AnswerEvaluation", "evaluate_answers"]

_BATCH = 64


@dataclass(frozen=True)
class AnswerEvaluation:
    """A network's answers to the dev questions, question id -> its best answers, best first, and their scores.

    em, f1: exact match and F1 of each question's best answer, means in percent.
    """

    em: float
    f1: float
    answers: dict[str, list[Answer]]

    def predictions(self) -> dict[str, str]:
        """Returns question id -> text of the best answer, the form that SQuAD's official evaluation script reads."""
        return {key: best[0].text for key, best in self.answers.items()}


def evaluate_answers(model: nn.Module, data: SquadData, *, device: torch.device) -> AnswerEvaluation:
    """Answers every dev question with a BERT and scores the answers.

    The network runs in float32 and in evaluation mode; its mode is restored afterwards. It must be on `device`.
    """
    logits: list[Any] = [None] * len(data.dev_windows)
    with torch.no_grad(), evaluation_mode(model):
        for indices, batch in eval_batches(data.dev_windows, _BATCH, pad_id=data.pad_id):
            out = run_bert(model, batch.to(device), hidden=False)
            start, end = (x.float().cpu().numpy() for x in (out.start_logits, out.end_logits))
            for row, index in enumerate(indices):
                logits[index] = (np.copy(start[row]), np.copy(end[row]))
    found = answers(data.dev, data.dev_windows, logits, n_best=data.config.n_best, max_answer=data.config.max_answer)
    texts = {key: best[0].text for key, best in found.items()}
    values = score_answers(texts, {example.id: example.answers for example in data.dev})
    return AnswerEvaluation(values["em"], values["f1"], found)
