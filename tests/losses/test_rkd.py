"""Relational knowledge distillation of a triangle and a line, of near neighbours, and without one of its terms."""

import math

import pytest
import torch
from helpers.classic_losses import loop_rkd_angle, loop_rkd_distance, student_and_teacher

from bnn_itrd.losses.rkd import RKD, rkd_angle_loss, rkd_distance_loss


def test_triangle_and_line() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0]])
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    # Distances over their mean: 3/4, 3/4, 3/2 on the line, 1 in the triangle.
    want = 2 * (2 * 0.25**2 / 2 + 0.5**2 / 2) / 9
    assert rkd_distance_loss(line, triangle).item() == pytest.approx(want, rel=1e-5)
    # Cosines: 1 at both ends and -1 in the middle of the line, 1/2 in the triangle; each angle counts twice.
    want = 2 * (2 * 0.5**2 / 2 + (1.5 - 0.5)) / 27
    assert rkd_angle_loss(line, triangle).item() == pytest.approx(want, rel=1e-5)


def test_near_neighbours_keep_their_directions_in_float32() -> None:
    """Differences through the Gram matrix would lose them: 1e-4 of 1 squared is below its rounding."""
    s = torch.tensor([[1.0, 1.0], [1.0, 1.0001], [1.0001, 1.0], [0.5, -1.0]])
    _, t = student_and_teacher(((4, 2), (4, 3)))
    for loss, loop in ((rkd_distance_loss, loop_rkd_distance), (rkd_angle_loss, loop_rkd_angle)):
        assert loss(s, t.float()).item() == pytest.approx(loop(s.double().numpy(), t.numpy()), rel=1e-5)


def test_rkd_skips_a_factor_of_zero() -> None:
    s, t = student_and_teacher(((5, 3), (5, 4)))
    assert RKD(angle=0)(s, t).item() == pytest.approx(25 * rkd_distance_loss(s, t).item())
    assert RKD(distance=0)(s, t).item() == pytest.approx(50 * rkd_angle_loss(s, t).item())
    assert RKD(distance=0, angle=0)(s, t).item() == 0
