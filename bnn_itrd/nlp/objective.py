"""The training loss: cross-entropy of the answer, KD on the logits, ITRD or distances of the layers."""

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

# It is far below any logit but finite, also after division by a temperature: inf - inf would be NaN in the KL.
_MASKED = -1e9


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Returns logits in float32 or wider, so low for padding that its probability is 0; (b, l), (b, l) -> (b, l)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.masked_fill(mask == 0, _MASKED)


def token_rows(hidden: Tensor, rows: Tensor) -> Tensor:
    """Returns the tokens at `Batch.rows` as the samples of a statistic; (b, l, d), (n,) -> (n, d)."""
    return rearrange(hidden, "b l d -> (b l) d").index_select(0, rows)


class QAObjective(nn.Module):
    """Computes ce * L_XE + kd * L_KD + sum_i L_ITRD(layer i of the student, layer m(i) of the teacher) + L_hidden.

    batch -> (loss (), parts (k,)); `parts` are the weighted terms in the order of `names`. m is `layer_map`.
    L_XE and L_KD (`soft_kl`) are the means of those of the start and of the end position, over the window's tokens:
    padding has no probability.

    ITRD's samples are tokens: each token of the batch that is not padding ([CLS] and [SEP] among them) is a row of the
    representations z_s and z_t, so a layer's (b, l, d) enters the mean, standard deviation and Gram matrices as (n, d),
    n = len(batch.rows). The paper says "to the output of each of the student transformer layers" (BMVC 2022, sec. 5)
    and not whether tokens or pooled windows are meant, nor how layers are joined; here they are summed, each with the
    paper's betas and an embedding of its own. The Gram matrices are n x n: `max_tokens` bounds n.

    L_hidden: `hidden_mse_loss` and `hidden_mmd_loss` of the embeddings and of each layer, added, and
    `hidden_cosine_loss` of the last layer, each with its weight; on the same rows, but for the Gram matrices' tokens.

    Parameters are the student's and the embeddings; the teacher runs in eval mode without gradients, and is neither
    among them nor in the state dict. Raises UserError where the layers do not divide, ValueError where a teacher is
    needed and missing.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | None, config: StudentConfig) -> None:
        super().__init__()
        self.student, self.config = student, config
        self.embeds = nn.ModuleList()
        self.layers: tuple[int, ...] = ()
        self._teacher: tuple[nn.Module, ...] = ()  # in a tuple: not a part of this module
        parts = (("ce", config.ce > 0), ("kd", config.kd), ("itrd", config.itrd), ("hidden", config.hidden))
        self.names = tuple(name for name, on in parts if on)
        if not config.needs_teacher:
            return
        if teacher is None:
            raise ValueError("kd, itrd and hidden need a teacher, got None")
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
        """Returns the weighted distances of hidden states, ()."""
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
    """Returns the tokens of a student's and a teacher's layer, (n, d) twice."""
    return token_rows(ours.hidden_states[layer], batch.rows), token_rows(theirs.hidden_states[number], batch.rows)


def run_bert(model: nn.Module, batch: Batch, *, hidden: bool) -> Any:
    """Returns start_logits, end_logits (b, l), and hidden_states (b, l, d): 0 is the embeddings, i layer i's output."""
    return model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        token_type_ids=batch.segments,
        output_hidden_states=hidden,
        return_dict=True,
    )


def _shape(model: Any) -> tuple[int, int]:
    """Returns (layers, width) of a BERT."""
    return model.config.num_hidden_layers, model.config.hidden_size
