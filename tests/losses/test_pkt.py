"""Probabilistic knowledge transfer of equal, orthogonal and opposite samples."""

import math

import pytest
import torch
from helpers.classic_losses import gradients

from bnn_itrd.losses.pkt import pkt_loss


def test_neighbours_of_equal_and_of_orthogonal_samples() -> None:
    n = 4
    total = 1 + (n - 1) / 2
    p_self, p_other = 1 / total, 0.5 / total
    want = (p_self * math.log(p_self * n) + (n - 1) * p_other * math.log(p_other * n)) / n
    assert pkt_loss(torch.ones(n, 3), torch.eye(n)).item() == pytest.approx(want, rel=1e-5)


def test_opposite_samples_round_to_no_neighbours() -> None:
    """In float32 the cosine of some of these pairs is below -1 by more than eps makes up for."""
    torch.manual_seed(0)
    for row in torch.randn(100, 2):
        z = torch.stack([row, -row]).requires_grad_()
        # The teacher spreads 1 and 1/2 over the row, the student 1 and 0.
        loss = pkt_loss(z, torch.eye(2))
        want = (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3 / 1e-7)) / 2
        # Above -1 the rounding counts too: up to 1e-7, as much as eps.
        assert loss.item() == pytest.approx(want, abs=0.35)
        assert gradients(loss, z)[0].isfinite().all()
