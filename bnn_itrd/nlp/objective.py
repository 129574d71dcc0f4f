"""The training loss of question answering: cross-entropy of the answer's positions, and distillation losses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bnn_itrd.losses import hidden_cosine_loss, hidden_mmd_loss, hidden_mse_loss, soft_kl
from bnn_itrd.nlp.bert import layer_map
from bnn_itrd.nlp.config import HiddenConfig, StudentConfig
from bnn_itrd.nlp.features import Batch

__all__ = ["QAObjective", "mask_logits", "run_bert", "token_rows"]

# The logit of padding. It is far below any other logit, but finite, because inf - inf would be NaN in KD's divergence.
_MASKED = -1e9


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Returns the logits with -1e9 for padding, whose probability is then 0; (b, l), mask (b, l) -> (b, l).

    The result is in float32, or in the logits' dtype if that is wider.

    >>> mask_logits(torch.zeros(1, 2), torch.tensor([[1, 0]])).softmax(1)
    tensor([[1., 0.]])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.masked_fill(mask == 0, _MASKED)


def token_rows(hidden: Tensor, rows: Tensor) -> Tensor:
    """Returns the hidden states of the tokens in `rows` (see `Batch`), without padding; (b, l, d), (n,) -> (n, d).

    >>> token_rows(torch.arange(6.0).reshape(1, 3, 2), torch.tensor([0, 2]))
    tensor([[0., 1.],
            [4., 5.]])
    """
    return rearrange(hidden, "b l d -> (b l) d").index_select(0, rows)


class QAObjective(nn.Module):
    """Computes the loss of a student BERT on a batch of windows; batch -> (loss (), parts (k,)).

    `parts` are the weighted terms in the order of `names`; the loss is their sum:

    - ce: cross-entropy of the answer's start and of its end over the window's tokens, of which the mean is taken
    - kd: knowledge distillation on the start and the end logits (`soft_kl`), of which the mean is taken
    - itrd: sum over the student's layers of ITRD with the teacher's layer that `layer_map` gives
    - hidden: `hidden_mse_loss` and `hidden_mmd_loss`, summed over the embeddings and all layers, and
      `hidden_cosine_loss` of the last layer, each with its weight

    ITRD's samples are the tokens of `Batch.rows`, [CLS] and [SEP] among them: a layer's (b, l, d) enters as (n, d) with
    n = len(batch.rows), which `max_tokens` limits because the Gram matrices are n x n. Each layer has its own linear
    projection. The paper says "to the output of each of the student transformer layers" (BMVC 2022, sec. 5), but not
    whether tokens or whole windows are the samples, nor how the layers are joined.

    The module's parameters are the student's and the projections. The teacher runs in evaluation mode without
    gradients, and is not in the state dict. Raises UserError unless the student's number of layers divides the
    teacher's, and ValueError if a teacher is needed and missing.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None, config: StudentConfig) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.embeds = nn.ModuleList()
        self.layers: tuple[int, ...] = ()
        self._teacher: tuple[nn.Module, ...] = ()  # a tuple keeps the teacher out of this module's parameters
        parts = (("ce", config.ce > 0), ("kd", config.kd), ("itrd", config.itrd), ("hidden", config.hidden))
        self.names = tuple(name for name, on in parts if on)
        if not config.needs_teacher:
            return
        if teacher is None:
            raise ValueError(
                "kd, itrd and hidden need a teacher, got None: pass one, or leave them out of the configuration"
            )
        self._teacher = (teacher.eval().requires_grad_(False),)
        own, theirs = _shape(student), _shape(teacher)
        if config.itrd is not None or config.hidden is not None:
            self.layers = layer_map(own[0], theirs[0])
        if config.itrd is not None:
            self.embeds.extend(config.itrd.loss_of(own[1], theirs[1]) for _ in self.layers)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        ours = run_bert(self.student, batch, hidden=bool(self.layers))
        start, end = mask_logits(ours.start_logits, batch.mask), mask_logits(ours.end_logits, batch.mask)
        terms = []
        if self.config.ce > 0:
            ce = (F.cross_entropy(start, batch.start) + F.cross_entropy(end, batch.end)) / 2
            terms.append(self.config.ce * ce)
        if self._teacher:
            with torch.no_grad():
                theirs = run_bert(self._teacher[0], batch, hidden=bool(self.layers))
        if (kd := self.config.kd) is not None:
            start_t, end_t = mask_logits(theirs.start_logits, batch.mask), mask_logits(theirs.end_logits, batch.mask)
            divergence = soft_kl(start, start_t, tau=kd.tau) + soft_kl(end, end_t, tau=kd.tau)
            terms.append(kd.weight * divergence / 2)
        if self.config.itrd is not None:
            total = torch.zeros((), device=start.device)
            for i, (itrd, number) in enumerate(zip(self.embeds, self.layers, strict=True), start=1):
                total = total + itrd(*_rows_of(ours, theirs, batch, i, number))
            terms.append(self.config.itrd.weight * total)
        if self.config.hidden is not None:
            terms.append(self._of_hidden(self.config.hidden, ours, theirs, batch))
        parts = torch.stack(terms)
        return parts.sum(), parts.detach()

    def _of_hidden(self, hidden: HiddenConfig, ours: Any, theirs: Any, batch: Batch) -> Tensor:
        """Returns the weighted sum of the distances between hidden states of student and teacher, ()."""
        pairs, total = [*enumerate((0, *self.layers))], torch.zeros((), device=batch.ids.device)  # 0: the embeddings
        for i, number in pairs if hidden.mse or hidden.mmd else ():
            if hidden.mse:
                total = total + hidden.mse * hidden_mse_loss(*_rows_of(ours, theirs, batch, i, number))
            if hidden.mmd:
                states = ours.hidden_states[i], theirs.hidden_states[number]
                total = total + hidden.mmd * hidden_mmd_loss(*states, batch.mask)
        if hidden.cosine:
            total = total + hidden.cosine * hidden_cosine_loss(*_rows_of(ours, theirs, batch, *pairs[-1]))
        return total


def _rows_of(ours: Any, theirs: Any, batch: Batch, layer: int, number: int) -> tuple[Tensor, Tensor]:
    """Returns the hidden states of `Batch.rows` in a layer of the student and in one of the teacher, (n, d) each."""
    return token_rows(ours.hidden_states[layer], batch.rows), token_rows(theirs.hidden_states[number], batch.rows)


def run_bert(model: nn.Module, batch: Batch, *, hidden: bool) -> Any:
    """Runs a BERT on a batch and returns its output, with the fields start_logits and end_logits, (b, l).

    hidden: whether it also has hidden_states, each (b, l, d): number 0 is the embeddings, number i the output of layer
    i, counted from 1.
    """
    return model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        token_type_ids=batch.segments,
        output_hidden_states=hidden,
        return_dict=True,
    )


def _shape(model: Any) -> tuple[int, int]:
    """Returns a BERT's number of layers and the width of its hidden states."""
    return model.config.num_hidden_layers, model.config.hidden_size
