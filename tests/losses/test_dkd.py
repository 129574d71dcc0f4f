"""Decoupled knowledge distillation is KD at equal weights, reads the labels, and takes large logits."""

import math

import pytest
import torch
from helpers.classic_losses import gradients, labels_of, student_and_teacher

from bnn_itrd.losses.dkd import dkd_loss
from bnn_itrd.losses.kd import soft_kl


def test_dkd_decouples_kd() -> None:
    s, t = student_and_teacher(((1, 7), (1, 7)))
    for tau in (1.0, 4.0):
        for y in range(7):
            p = (t / tau).softmax(1)[0, y].item()
            got = dkd_loss(s, t, torch.tensor([y]), alpha=1, beta=1 - p, tau=tau).item()
            assert got == pytest.approx(soft_kl(s, t, tau=tau).item(), rel=1e-10)


def test_dkd_reads_the_labels() -> None:
    s, t = student_and_teacher(((6, 5), (6, 5)))
    label = labels_of(s)
    assert dkd_loss(s, t, label).item() != pytest.approx(dkd_loss(s, t, (label + 1) % 5).item(), rel=1e-3)
    # Two classes: there is one other class, so the second term is 0.
    s, t = student_and_teacher(((4, 2), (4, 2)))
    label = torch.tensor([0, 1, 1, 0])
    assert dkd_loss(s, t, label, beta=8).item() == pytest.approx(dkd_loss(s, t, label, beta=0).item())
    assert dkd_loss(s, t, label, beta=0).item() == pytest.approx(soft_kl(s, t).item())
    assert dkd_loss(s, t, label, alpha=0).item() == pytest.approx(0, abs=1e-12)


def test_dkd_of_large_logits() -> None:
    """The published mask of -1000 would leave the target among the other classes."""
    s = torch.tensor([[5000.0, 1.0, 0.0]], requires_grad=True)
    t = torch.tensor([[5000.0, 0.0, 1.0]])
    loss = dkd_loss(s, t, torch.tensor([0]), beta=1.0, tau=1.0)
    assert loss.item() == pytest.approx((math.e - 1) / (math.e + 1), rel=1e-5)
    assert gradients(loss, s)[0].isfinite().all()
