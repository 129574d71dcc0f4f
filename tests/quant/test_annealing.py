"""Annealing: where schedules begin and end, what progress changes, and what of it is state."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from helpers.binarisers import make_weight, normal

from bnn_itrd.quant import SCHEMES, BinaryConv2d, Scheme, ede_parameters, reste_o, set_progress, start_epoch


def test_annealing_end_points() -> None:
    zero, one = torch.tensor(0.0).double(), torch.tensor(1.0).double()
    assert [float(v) for v in ede_parameters(zero)] == pytest.approx([100, 0.01])
    assert [float(v) for v in ede_parameters(one)] == pytest.approx([1, 10])
    assert [float(v) for v in ede_parameters(0.5 * one, t_min=0.1, t_max=0.4)] == pytest.approx([5, 0.2])
    assert [float(reste_o(v)) for v in (zero, one)] == pytest.approx([1, 3])
    assert float(reste_o(0.5 * one, o_max=4)) == pytest.approx(4 - 3 * math.sqrt(0.5))


@pytest.mark.parametrize("name", ["recu", "irnet", "rbnn", "adabin", "reste"])
def test_progress_changes_gradients_and_no_values(name: str) -> None:
    w, g = normal(3, 2, 3, 3, seed=5).requires_grad_(), normal(3, 2, 3, 3, seed=6)
    binarizer, found = make_weight(name, (3, 2, 3, 3)), []
    for p in (0.0, 1.0):
        set_progress(binarizer, p)
        signs = binarizer(w).signs
        found.append((signs.detach(), torch.autograd.grad((signs * g).sum(), w)[0]))
    assert torch.equal(found[0][0], found[1][0]) and not torch.allclose(found[0][1], found[1][1], rtol=1e-2)


@pytest.mark.parametrize("name", SCHEMES)
def test_state_of_every_scheme(name: str) -> None:
    torch.manual_seed(0)
    layer, fresh = (BinaryConv2d(3, 4, 3, scheme=name) for _ in range(2))
    set_progress(layer, 0.7)
    start_epoch(layer)
    fresh.load_state_dict(pickle.loads(pickle.dumps(layer.state_dict())))
    x = normal(2, 3, 5, 5, dtype=torch.float32)
    torch.testing.assert_close(fresh(x), layer(x), rtol=0, atol=0)
    assert all(float(m.progress) == pytest.approx(0.7) for m in (fresh.weight_binarizer, fresh.activation_binarizer))


@pytest.mark.parametrize(
    ("scheme", "published"),
    [("recu", (0.85, 0.99)), ("biper_sine", (0.037, 0.037)), ("biper", (0.0468, 0.0468))],
)
def test_tau_is_the_published_one_of_each_scheme(scheme: str, published: tuple[float, float]) -> None:
    for made in (scheme, Scheme(scheme)):
        binarizer = BinaryConv2d(3, 4, 3, scheme=made).weight_binarizer
        assert (binarizer.tau_min, binarizer.tau_max) == published
    assert Scheme(scheme, tau_max=0.995).tau() == (published[0], 0.995)
    alone = type(binarizer)(4)
    assert (alone.tau_min, alone.tau_max) == published
