"""Losses of hidden states, TextBrewer's and DistilBERT's, against loops, and as options of question answering."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bnn_itrd import recipes
from bnn_itrd.config.trees import differences
from bnn_itrd.distillers.representation.itrd import ITRDConfig
from bnn_itrd.errors import UserError
from bnn_itrd.losses import hidden_cosine_loss, hidden_mmd_loss, hidden_mse_loss
from bnn_itrd.nlp.config import HiddenConfig, LayerITRDConfig, SquadConfig, StudentConfig
from bnn_itrd.nlp.options import squad_config


def rows(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0.3, 1.2, shape))


MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])


def test_all_three_by_loops() -> None:
    z_s, z_t = rows(0, 4, 3), rows(1, 4, 3)
    squares = [(a - b) ** 2 for a, b in zip(z_s.flatten().tolist(), z_t.flatten().tolist(), strict=True)]
    assert hidden_mse_loss(z_s, z_t).item() == pytest.approx(sum(squares) / 12)
    cosines = [a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in zip(z_s.numpy(), z_t.numpy(), strict=True)]
    assert hidden_cosine_loss(z_s, z_t).item() == pytest.approx(1 - sum(cosines) / 4)
    h_s, h_t = rows(2, 2, 3, 4), rows(3, 2, 3, 5)
    found = []
    for b, length in enumerate((3, 2)):
        for i in range(length):
            for j in range(length):
                grams = (float(h[b, i] @ h[b, j]) / h.shape[2] for h in (h_s, h_t))
                found.append((next(grams) - next(grams)) ** 2)
    assert hidden_mmd_loss(h_s, h_t, MASK).item() == pytest.approx(sum(found) / 13)


def test_gradcheck() -> None:
    z_s, z_t = rows(0, 4, 3).requires_grad_(), rows(1, 4, 3)
    for loss in (hidden_mse_loss, hidden_cosine_loss):
        assert torch.autograd.gradcheck(lambda z, f=loss: f(z, z_t), (z_s,))
    h_s, h_t = rows(2, 2, 3, 4).requires_grad_(), rows(3, 2, 3, 5)
    assert torch.autograd.gradcheck(lambda h: hidden_mmd_loss(h, h_t, MASK), (h_s,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dead_tokens_and_half_precision(dtype: torch.dtype) -> None:
    h_s, h_t = (rows(seed, 2, 3, 4).to(dtype) for seed in (0, 1))
    h_s[0, 1] = h_t[1, 0] = 0
    h_s.requires_grad_()
    flat = h_s.flatten(0, 1), h_t.flatten(0, 1)
    total = hidden_mse_loss(*flat) + hidden_cosine_loss(*flat) + hidden_mmd_loss(h_s, h_t, MASK)
    assert total.dtype == torch.float32 and total.isfinite()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = hidden_mse_loss(*flat) + hidden_cosine_loss(*flat) + hidden_mmd_loss(h_s, h_t, MASK)
    torch.testing.assert_close(again, total)
    total.backward()
    assert h_s.grad is not None and h_s.grad.isfinite().all()


def test_what_stands_in_padding_changes_nothing() -> None:
    h_s, h_t = rows(2, 2, 3, 4).requires_grad_(), rows(3, 2, 3, 5)
    value = hidden_mmd_loss(h_s, h_t, MASK)
    value.backward()
    assert h_s.grad is not None and not h_s.grad[1, 2].any()
    h_t[1, 2] = 1e9
    assert torch.equal(hidden_mmd_loss(h_s, h_t, MASK), value)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="z_s and z_t must have the same shape"):
        hidden_mse_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(
        ValueError, match=r"hidden_s, hidden_t and mask must be .*, got \(2, 3\), \(2, 3, 4\), \(2, 3\)"
    ):
        hidden_mmd_loss(torch.zeros(2, 3), torch.zeros(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(UserError, match=r"hidden\.mse must be > 0 without mmd and cosine"):
        HiddenConfig(mse=0)


# ---- question answering


def test_the_recipe_has_textbrewers_and_distilberts_settings() -> None:
    made = squad_config("train", "", recipes.read("squad"), [], extra={})[0].students
    for name, layers in (("t6-textbrewer", 6), ("t3-textbrewer", 3)):
        student = made[name]
        assert (student.layers, student.ce, student.hidden) == (layers, 0, HiddenConfig(mse=1, mmd=1))
        # Of the sum of start and end, without tau^2.
        assert student.kd is not None and student.kd.weight * student.kd.tau**2 / 2 == 1 and student.kd.tau == 8
    student = made["t6-distilbert"]
    assert student.kd is not None and (student.ce, student.kd.weight, student.kd.tau) == (2, 5, 2)
    assert student.hidden == HiddenConfig(mse=0, cosine=1)


def test_itrd_on_layers_has_every_switch_of_itrd() -> None:
    words = ["--students.t6.itrd.order=1.5", "--students.t6.itrd.corr_log=false", "--students.t6.itrd.degree=2"]
    itrd = squad_config("train", "", recipes.read("squad"), words, extra={})[0].students["t6"].itrd
    assert isinstance(itrd, ITRDConfig) and (itrd.order, itrd.corr_log, itrd.degree) == (1.5, False, 2)
    loss = itrd.loss_of(4, 4)
    assert (loss.order, loss.corr_log, loss.degree) == (1.5, False, 2)
    with pytest.raises(UserError, match=r"itrd\.final must be 1\.0, since weights stay constant"):
        LayerITRDConfig(final=0.5)


def test_a_run_from_before_the_switches_goes_on() -> None:
    student = StudentConfig(itrd=LayerITRDConfig(max_tokens=64))
    now = SquadConfig(students={"s": student}).identity("s")["student"]
    before = {"alpha": 1.01, "beta_corr": 2.0, "beta_mi": 1.0, "max_tokens": 64}
    assert now["itrd"] == before
    assert differences({"student": {**now, "hidden": None}}, {"student": now}) == []
    other = SquadConfig(students={"s": StudentConfig(itrd=LayerITRDConfig(max_tokens=64, order=3.0))}).identity("s")
    assert differences({"student": now}, {"student": other["student"]}) == [
        "student.itrd.order: 'absent' there, 3.0 given"
    ]
