"""RBNN's rotation of the weights: found as in NumPy, renewed every epoch, saved, and in full precision."""

from __future__ import annotations

import math

import numpy as np
import torch
from helpers.binarisers import Array, hard, make_weight, normal, numerical, standard, triangle
from torch import Tensor, nn

from bnn_itrd.quant import BinaryConv2d, BinaryLinear, RBNNWeight, rbnn_rotations, start_epoch


def random_rotation(n: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(n, n, seed=seed))[0]


def test_rbnn_with_rotations_and_any_theta() -> None:
    shape = (3, 2, 2, 3)
    binarizer = make_weight("rbnn", shape)
    with torch.no_grad():
        binarizer.rotation1.copy_(random_rotation(3, 1))
        binarizer.rotation2.copy_(random_rotation(4, 2))
        binarizer.theta.copy_(torch.tensor([0.4, -1.1, 2.0]))
    w, g = (0.7 * normal(*shape, seed=5)).requires_grad_(), normal(*shape, seed=6).numpy()
    signs = binarizer(w).signs
    r1, r2 = binarizer.rotation1.numpy(), binarizer.rotation2.numpy()

    def mixed(v: Array, theta: Array) -> Array:
        out = np.empty_like(v)
        for o, filter_ in enumerate(standard(v, eps=0)):
            matrix = filter_.reshape(3, 4)
            share = abs(math.sin(theta[o]))
            out[o] = (matrix + share * (r1.T @ matrix @ r2 - matrix)).reshape(shape[1:])
        return out

    start, theta = w.detach().numpy(), binarizer.theta.detach().numpy()
    np.testing.assert_array_equal(signs.detach().numpy(), hard(mixed(start, theta)))
    (signs * torch.from_numpy(g)).sum().backward()
    for parameter, f in (
        (w, lambda v: float((triangle(mixed(v, theta)) * g).sum())),
        (binarizer.theta, lambda v: float((triangle(mixed(start, v)) * g).sum())),
    ):
        want = numerical(f, parameter.detach().numpy())
        np.testing.assert_allclose(parameter.grad.numpy(), want, rtol=2e-6, atol=2e-7)


def test_rbnn_rotations_against_numpy() -> None:
    w = normal(5, 3, 4, seed=3)
    left, right = np.eye(3), np.eye(4)

    def objective() -> float:
        return sum(float(np.abs(left.T @ m @ right).sum()) for m in w.numpy())

    values = [objective()]
    for updates in (1, 2, 3):
        signs = [hard(left.T @ m @ right) for m in w.numpy()]
        u, _, vh = np.linalg.svd(sum(b @ right.T @ m.T for b, m in zip(signs, w.numpy(), strict=True)))
        left = vh.T @ u.T
        u, _, vh = np.linalg.svd(sum(m.T @ left @ b for b, m in zip(signs, w.numpy(), strict=True)))
        right = u @ vh
        values.append(objective())
        got = rbnn_rotations(w, torch.eye(3).double(), torch.eye(4).double(), updates=updates)
        np.testing.assert_allclose(got[0].numpy(), left, atol=1e-9)
        np.testing.assert_allclose(got[1].numpy(), right, atol=1e-9)
    assert values == sorted(values) and values[-1] > 1.02 * values[0]


def test_rbnn_rotates_in_full_precision_under_autocast() -> None:
    """Many entries: some are within bfloat16's rounding of 0."""
    torch.manual_seed(0)
    layer = BinaryConv2d(64, 32, 3, scheme="rbnn")
    with torch.no_grad():
        layer.weight_binarizer.rotation1.copy_(random_rotation(24, 1))
        layer.weight_binarizer.rotation2.copy_(random_rotation(24, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        signs = layer.binary_weight().signs
    assert torch.equal(signs, layer.binary_weight().signs)


def test_start_epoch_renews_rotations_which_are_saved() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(BinaryConv2d(4, 6, 3, scheme="rbnn"), nn.Flatten(), BinaryLinear(6, 2, scheme="xnor"))
    binarizer = net[0].weight_binarizer
    assert isinstance(binarizer, RBNNWeight) and binarizer.sizes == (6, 6)
    torch.testing.assert_close(binarizer.alpha.detach(), net[0].weight.detach().abs().flatten(1).mean(1))
    before = net[0].binary_weight().signs
    start_epoch(net)
    assert not torch.equal(net[0].binary_weight().signs, before)
    for r in (binarizer.rotation1, binarizer.rotation2):
        torch.testing.assert_close(r @ r.T, torch.eye(6), rtol=0, atol=1e-5)
    fresh = nn.Sequential(BinaryConv2d(4, 6, 3, scheme="rbnn"), nn.Flatten(), BinaryLinear(6, 2, scheme="xnor"))
    fresh.load_state_dict(net.state_dict())
    x = normal(2, 4, 3, 3, dtype=torch.float32)
    assert torch.equal(fresh(x), net(x))
    start_epoch(nn.Linear(2, 2))


def test_latent_weights_of_rbnn_get_a_gradient_from_the_start() -> None:
    layer = BinaryConv2d(4, 6, 3, scheme="rbnn")
    layer(normal(2, 4, 3, 3, dtype=torch.float32)).square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().max() > 0
