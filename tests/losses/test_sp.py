"""Similarity-preserving distillation of equal and of orthogonal samples."""

import math

import pytest
import torch

from bnn_itrd.losses.sp import sp_loss


def test_similarities_of_equal_and_of_orthogonal_samples() -> None:
    n = 6
    assert sp_loss(torch.ones(n, 2, 3, 3), torch.eye(n)).item() == pytest.approx((2 - 2 / math.sqrt(n)) / n)
