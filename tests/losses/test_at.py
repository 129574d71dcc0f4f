"""Attention transfer where the attention lies in different places."""

import math

import pytest
import torch

from bnn_itrd.losses.at import at_loss


def test_attention_in_different_places() -> None:
    s, t = torch.zeros(2, 3, 2, 2), torch.zeros(2, 4, 2, 2)
    s[:, :, 0, 0], t[:, 1, 1, 0] = 0.5, -3
    assert at_loss(s, t).item() == pytest.approx(2 / 4)
    t[:, 2, 0, 0] = 3
    assert at_loss(s, t).item() == pytest.approx((2 - 2 / math.sqrt(2)) / 4)
