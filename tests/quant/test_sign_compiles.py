"""`sign` under torch.compile, whole: of a tensor that wants a gradient and of one that wants none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bnn_itrd.quant import SURROGATES, sign

COUNTS = {"ede": 2, "triangle": 2, "reste": 1}


@pytest.mark.compiles
@pytest.mark.parametrize("wants_gradient", [True, False])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_sign_compiles_whole(surrogate: str, wants_gradient: bool) -> None:
    torch.compiler.reset()
    parameters = tuple(torch.tensor(1.5) for _ in range(COUNTS.get(surrogate, 0)))

    def signs(x: Tensor) -> Tensor:
        return sign(x, surrogate=surrogate, parameters=parameters)

    x = torch.tensor([-2.0, -0.5, -0.0, 0.0, 0.25, 1.0, 3.0], requires_grad=wants_gradient)
    y = torch.compile(signs, fullgraph=True, backend="aot_eager")(x)
    assert y.tolist() == [-1, -1, 1, 1, 1, 1, 1] and y.requires_grad == wants_gradient
    if wants_gradient:
        g = torch.arange(1.0, 8.0)
        (compiled,) = torch.autograd.grad(y, x, g)
        (eager,) = torch.autograd.grad(signs(x), x, g)
        torch.testing.assert_close(compiled, eager)
