"""`sign` and its surrogate gradients: values and derivatives against NumPy, at ties, at clip points, in every dtype."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.numbers import rand
from torch import Tensor

from bnn_itrd.quant import SURROGATES, Scheme, sign

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
TIES = [0.0, -0.0]
CLIPS = [-1.0, 1.0, -1.0078125, 1.0078125, -0.99609375, 0.99609375]
POINTS = [*TIES, *CLIPS, math.inf, -math.inf, 1e-6, -1e-6, 0.5, -0.5, 0.25, -0.75, 2.0, -2.0, 300.0]
# The derivative each surrogate claims, in NumPy: the shared table of every quantiser with a sign in it.
PARAMETERS = {"ede": (1.25, 0.8), "triangle": (1.5, 0.7), "reste": (2.5,)}
DERIVATIVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": np.ones_like,
    "clipped": lambda x: np.where(np.abs(x) <= 1, 1.0, 0.0),
    "polynomial": lambda x: np.where(np.abs(x) < 1, 2 - 2 * np.minimum(np.abs(x), 1), 0.0),
    "ede": lambda x: 1.25 * 0.8 / np.cosh(np.clip(0.8 * x, -50, 50)) ** 2,
    "triangle": lambda x: 1.5 * np.where(np.abs(x) < 2**0.5 / 0.7, 2**0.5 * 0.7 - 0.49 * np.minimum(np.abs(x), 9), 0.0),
    "reste": lambda x: np.select(
        [np.abs(x) <= 0.1, np.abs(x) <= 1.5],
        [0.1 ** (1 / 2.5) / 0.1, np.maximum(np.abs(x), 0.1) ** (1 / 2.5 - 1) / 2.5],
        0.0,
    ),
}


def test_the_table_is_complete() -> None:
    assert set(DERIVATIVES) == set(SURROGATES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("surrogate", list(DERIVATIVES))
def test_sign_value_and_gradient(surrogate: str, dtype: torch.dtype) -> None:
    x = torch.tensor(POINTS, dtype=torch.float64).to(dtype).requires_grad_()
    incoming = rand(len(POINTS), dtype=dtype)
    parameters = tuple(torch.tensor(v, dtype=torch.float64) for v in PARAMETERS.get(surrogate, ()))
    y = sign(x, surrogate=surrogate, parameters=parameters)
    y.backward(incoming)
    exact = x.detach().double().numpy()
    assert y.dtype == dtype and y.shape == x.shape
    np.testing.assert_array_equal(y.detach().double().numpy(), np.where(exact >= 0, 1.0, -1.0))
    assert x.grad is not None and x.grad.dtype == dtype
    want = incoming.double().numpy() * DERIVATIVES[surrogate](exact)
    tolerance = torch.finfo(dtype).eps
    np.testing.assert_allclose(x.grad.double().numpy(), want, rtol=4 * tolerance, atol=2 * tolerance)


def test_sign_of_zero_is_plus_one_unlike_torch_sign() -> None:
    assert sign(torch.tensor([0.0, -0.0])).tolist() == [1, 1]
    assert torch.sign(torch.tensor([0.0])).item() == 0


def test_sign_of_nan_and_of_empty() -> None:
    assert sign(torch.tensor([math.nan])).item() == -1
    assert sign(torch.empty(0, 3)).shape == (0, 3)


def test_sign_gradient_keeps_no_activation_alive_for_the_identity() -> None:
    saved: list[Tensor] = []
    x = rand(4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        sign(x)
        assert not saved
        sign(x, surrogate="clipped")
    assert len(saved) == 1


@pytest.mark.parametrize(("name", "surrogate"), [("clipped", "clipped"), ("polynomial", "polynomial")])
def test_plain_activations_have_the_derivative_they_name(name: str, surrogate: str) -> None:
    x = (1.5 * rand(3, 4)).requires_grad_()
    Scheme(activation=name).make_activation(4)(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), DERIVATIVES[surrogate](x.detach().numpy()), rtol=1e-6, atol=1e-7)
