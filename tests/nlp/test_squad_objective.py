"""The objective of question answering against NumPy, the layers that it matches, and what it lets learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.squad import batch_of

from bnn_itrd.errors import UserError
from bnn_itrd.nlp.bert import layer_map, load_bert, make_student
from bnn_itrd.nlp.config import (
    HiddenConfig,
    LayerITRDConfig,
    LogitKDConfig,
    StudentConfig,
)
from bnn_itrd.nlp.features import Batch
from bnn_itrd.nlp.objective import QAObjective
from bnn_itrd.nlp.squad import Example
from bnn_itrd.training.optimizer import learning_rate


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(6, 12, (2, 4, 6, 8, 10, 12)), (3, 12, (4, 8, 12)), (4, 4, (1, 2, 3, 4)), (1, 4, (4,))],
)
def test_layer_map(student: int, teacher: int, expected: tuple[int, ...]) -> None:
    assert layer_map(student, teacher) == expected


@pytest.mark.parametrize("student", [5, 8, 24, 0])
def test_layers_that_do_not_divide_are_refused(student: int) -> None:
    with pytest.raises(UserError, match=f"layers must divide the teacher's 12, got {student}"):
        layer_map(student, 12)


def test_a_student_is_every_second_layer_of_its_teacher(bert: Path) -> None:
    torch.manual_seed(0)
    teacher = load_bert(bert, random_init=True).eval()
    student = make_student(teacher, 2).eval()
    theirs = teacher.state_dict()
    for name, value in student.state_dict().items():
        for own, kept in (("layer.0.", "layer.1."), ("layer.1.", "layer.3.")):
            if own in name:
                name = name.replace(own, kept)
                break
        assert torch.equal(value, theirs[name]), name
    assert student.config.num_hidden_layers == 2 and teacher.config.num_hidden_layers == 4
    same = make_student(teacher, 4).eval()
    ids = torch.arange(12).reshape(2, 6)
    assert torch.equal(same(input_ids=ids).start_logits, teacher(input_ids=ids).start_logits)
    student.qa_outputs.weight.data.zero_()
    assert teacher.qa_outputs.weight.abs().sum() > 0, "a student shares no memory with its teacher"


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def reference(student: Any, teacher: Any, objective: QAObjective, batch: Batch, *, alpha: float, tau: float) -> list:
    """[ce, kd, itrd] in float64 with loops: unpadded windows, one at a time, through the networks."""
    ce = kd = 0.0
    n = len(batch.ids)
    hidden: dict[str, list[list[np.ndarray]]] = {"s": [], "t": []}
    for b in range(n):
        size = int(batch.mask[b].sum())
        cut = {"input_ids": batch.ids[b : b + 1, :size], "token_type_ids": batch.segments[b : b + 1, :size]}
        with torch.no_grad():
            outs = {k: m(**cut, output_hidden_states=True) for k, m in (("s", student), ("t", teacher))}
        for k, out in outs.items():
            hidden[k].append([h[0].numpy() for h in out.hidden_states])
        for field, target in (("start_logits", batch.start), ("end_logits", batch.end)):
            s, t = (outs[k][field][0].numpy() for k in "st")
            ce -= np.log(softmax(s)[int(target[b])]) / 2 / n
            p, q = softmax(t / tau), softmax(s / tau)
            kd += tau**2 * sum(p[i] * np.log(p[i] / q[i]) for i in range(size)) / 2 / n
    itrd = 0.0
    for layer, (own, number) in enumerate(((1, 2), (2, 4))):
        z_s = np.concatenate([h[own] for h in hidden["s"]])
        z_t = np.concatenate([h[number] for h in hidden["t"]])
        embed = objective.embeds[layer].embed
        mapped = z_s @ embed.weight.detach().numpy().T + embed.bias.detach().numpy()
        total = 0.0
        for i in range(z_t.shape[1]):
            a, b = mapped[:, i], z_t[:, i]
            v = ((a - a.mean()) / a.std(ddof=1) * (b - b.mean()) / b.std(ddof=1)).mean()
            total += abs(v - 1) ** (2 * alpha)
        z_s, z_t = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_s, z_t))
        g_s = z_s @ z_s.T
        g_st = g_s * (z_t @ z_t.T)
        mi = ((g_s / np.trace(g_s)) ** 2).sum() - ((g_st / np.trace(g_st)) ** 2).sum()
        itrd += 2.0 * np.log2(total) + 1.0 * mi
    return [0.5 * ce, 0.7 * kd, itrd]


def objective_of(bert: Path, **changes: Any) -> tuple[QAObjective, Any]:
    """An objective in float64 without dropout: a student of 2 layers moved off its teacher of 4."""
    torch.manual_seed(1)
    teacher = load_bert(bert, random_init=True).double().eval()
    student = make_student(teacher, 2).double().eval()
    with torch.no_grad():
        for p in [*student.parameters(), *teacher.parameters()]:
            p += 0.05 * torch.randn_like(p)
    config = StudentConfig(2, ce=0.5, kd=LogitKDConfig(0.7, 3.0), itrd=LayerITRDConfig(alpha=1.5, **changes))
    return QAObjective(student, teacher, config).double().eval(), teacher


def test_the_objective_is_that_of_loops_over_unpadded_windows(bert: Path, questions: list[Example]) -> None:
    objective, teacher = objective_of(bert)
    batch = batch_of(bert, questions)
    loss, parts = objective(batch)
    expected = reference(objective.student, teacher, objective, batch, alpha=1.5, tau=3.0)
    assert objective.names == ("ce", "kd", "itrd")
    np.testing.assert_allclose(parts.numpy(), expected, rtol=1e-9)
    assert loss.item() == pytest.approx(sum(expected))


def test_padding_never_enters_the_loss_or_its_gradients(bert: Path, questions: list[Example]) -> None:
    objective, _ = objective_of(bert)
    batch = batch_of(bert, questions)

    def step(given: Batch) -> tuple[float, list[torch.Tensor]]:
        objective.zero_grad(set_to_none=False)
        loss, _ = objective(given)
        loss.backward()
        return loss.item(), [torch.zeros(1) if p.grad is None else p.grad.clone() for p in objective.parameters()]

    def close(other: Batch) -> None:
        loss, gradients = step(other)
        assert loss == pytest.approx(plain, rel=1e-12)
        for a, b in zip(gradients, plain_gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

    plain, plain_gradients = step(batch)
    assert sum(float(g.abs().sum()) for g in plain_gradients) > 0
    noise = torch.randint(5, 20, batch.ids.shape, generator=torch.Generator().manual_seed(0))
    other = torch.where(batch.mask == 1, batch.ids, noise)
    assert not torch.equal(other, batch.ids)
    close(batch._replace(ids=other))
    close(batch._replace(segments=torch.where(batch.mask == 1, batch.segments, 1)))
    wide = [torch.nn.functional.pad(t, (0, 4)) for t in batch[:3]]
    close(Batch(*wide, batch.start, batch.end, torch.nonzero(wide[1].flatten()).flatten()))

    # The same test can fail: a real token counts, and so would padding among the rows.
    first = batch.ids.clone()
    first[0, 1] = 7
    assert step(batch._replace(ids=first))[0] != pytest.approx(plain, rel=1e-6)
    every = torch.arange(batch.ids.numel())
    assert step(batch._replace(rows=every))[0] != pytest.approx(plain, rel=1e-6)


def test_only_the_student_and_the_embeddings_learn(bert: Path, questions: list[Example]) -> None:
    objective, teacher = objective_of(bert)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    assert not any(p.requires_grad for p in teacher.parameters())
    names = {name.split(".")[0] for name in objective.state_dict()}
    assert names == {"student", "embeds"} and len(objective.embeds) == 2
    loss, _ = objective.train()(batch_of(bert, questions, max_rows=9))
    loss.backward()
    assert not teacher.training
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in objective.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    with pytest.raises(ValueError, match="kd, itrd and hidden need a teacher"):
        QAObjective(objective.student, None, StudentConfig(kd=LogitKDConfig()))


def test_a_term_that_is_off_is_not_computed(bert: Path, questions: list[Example]) -> None:
    objective, teacher = objective_of(bert)
    plain = QAObjective(objective.student, teacher, StudentConfig(2)).eval()
    assert plain.names == ("ce",) and len(plain.embeds) == 0
    only = QAObjective(objective.student, teacher, StudentConfig(2, ce=0.0, kd=LogitKDConfig(0.7, 3.0))).eval()
    batch = batch_of(bert, questions)
    assert only.names == ("kd",)
    torch.testing.assert_close(only(batch)[0], objective(batch)[1][1])
    torch.testing.assert_close(plain(batch)[0], 2 * objective(batch)[1][0])


def test_hidden_states_are_those_of_the_matched_layers(bert: Path, questions: list[Example]) -> None:
    """Against unpadded windows, one at a time: the embeddings, and student layers 1, 2 beside 2, 4 of the teacher."""
    objective, teacher = objective_of(bert)
    config = StudentConfig(2, ce=0.0, hidden=HiddenConfig(mse=0.5, mmd=3.0, cosine=2.0))
    hidden = QAObjective(objective.student, teacher, config).double().eval()
    assert hidden.names == ("hidden",) and not [*hidden.embeds]
    batch = batch_of(bert, questions)
    seen: dict[str, list[list[np.ndarray]]] = {"s": [], "t": []}
    for b in range(len(batch.ids)):
        size = int(batch.mask[b].sum())
        cut = {"input_ids": batch.ids[b : b + 1, :size], "token_type_ids": batch.segments[b : b + 1, :size]}
        for key, model in (("s", objective.student), ("t", teacher)):
            with torch.no_grad():
                states = model(**cut, output_hidden_states=True).hidden_states
            seen[key].append([h[0].numpy() for h in states])
    expected = 0.0
    for own, number in ((0, 0), (1, 2), (2, 4)):
        pairs = [(s[own], t[number]) for s, t in zip(seen["s"], seen["t"], strict=True)]
        tokens = [np.concatenate([pair[k] for pair in pairs]) for k in (0, 1)]
        expected += 0.5 * ((tokens[0] - tokens[1]) ** 2).mean()
        grams = [((s @ s.T - t @ t.T) / s.shape[1]).ravel() for s, t in pairs]
        expected += 3.0 * (np.concatenate(grams) ** 2).mean()
    s, t = tokens
    expected += 2.0 * (1 - ((s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)).mean())
    assert hidden(batch)[0].item() == pytest.approx(expected, rel=1e-9)


def test_learning_rate_rises_and_falls_linearly() -> None:
    rates = [learning_rate(s, steps=10, warmup=4, peak=2.0, schedule="linear") for s in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2 * 5 / 6, 2 * 4 / 6, 1.0, 2 * 2 / 6, 2 / 6])
    assert learning_rate(0, steps=3, warmup=0, peak=1.0, schedule="linear") == 1.0
