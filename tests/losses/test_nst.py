"""Neuron selectivity transfer of equal and of disjoint channels."""

import pytest
import torch

from bnn_itrd.losses.nst import nst_loss


def test_kernels_of_equal_and_of_disjoint_channels() -> None:
    s, t = torch.zeros(2, 2, 2, 2), torch.zeros(2, 2, 2, 2)
    s[:, :, 0, 0] = 2
    t[:, 0, 0, 1] = t[:, 1, 1, 0] = 5
    # Equal channels: k = 1; two orthogonal ones: 1/2 on average; between the sides: 0.
    assert nst_loss(s, t).item() == pytest.approx(1.5)
    t[:, 0, 0, 1], t[:, 0, 0, 0] = 0, -5
    assert nst_loss(s, t).item() == pytest.approx(1 + 0.5 - 2 * 0.5)
