"""The scaling that losses share: rows of length 1, and values divided by the largest."""

import torch
from helpers.classic_losses import gradients

from bnn_itrd.losses._scale import by_peak, unit


def test_unit_rows() -> None:
    x = torch.tensor([[3.0, -4.0], [0.0, 0.0], [3e-30, 4e-30], [3e30, 4e30], [0.0, 7.0], [1e-6, 0.0]])
    want = torch.tensor([[0.6, -0.8], [0, 0], [0, 0], [0.6, 0.8], [0, 1], [1, 0]])
    x.requires_grad_()
    torch.testing.assert_close(unit(x), want)
    (grad,) = gradients((unit(x) * torch.tensor([1.0, 2.0])).sum(), x)
    assert grad.isfinite().all()
    assert not grad[1:3].any()
    # d/dx of (x + 2 y) / |(x, y)| at (3, -4): (y^2 - 2 x y, 2 x^2 - x y) / 125.
    torch.testing.assert_close(grad[0], torch.tensor([(16 + 24) / 125, (18 + 12) / 125]))
    torch.testing.assert_close(grad[4], torch.tensor([1 / 7, 0]))


def test_by_peak() -> None:
    x = torch.tensor([[2.0, -8.0], [1e-9, 0.0]])
    torch.testing.assert_close(by_peak(x), torch.tensor([[0.25, -1.0], [0, 0]]))
    torch.testing.assert_close(by_peak(x, (0, 1)), x / 8)
