"""What `recu_activation` keeps for the backward pass, and that its gradient has the bits of the plain composition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bnn_itrd.quant import recu_activation, sign

SHAPES = [(4, 8, 6, 6), (3, 5), (2, 1), (1,)]


def composed(x: Tensor) -> Tensor:
    """The published formula, each operation left to autograd."""
    wide = x if x.dtype == torch.float64 else x.float()
    rows = wide if wide.dim() > 1 else wide[None]
    correction = 1 if math.prod(rows.shape[1:]) > 1 else 0
    variance = rows.var(tuple(range(1, rows.dim())), correction=correction, keepdim=True)
    return sign(rows * torch.rsqrt(variance + 1e-5), surrogate="polynomial").to(x.dtype).reshape(x.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_signs_and_gradient_have_the_bits_of_the_composition(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    x, incoming = (torch.randn(shape, generator=random).to(dtype).requires_grad_(which) for which in (True, False))
    results = []
    for form in (composed, recu_activation):
        y = form(x)
        (gradient,) = torch.autograd.grad(y, x, incoming, create_graph=True)
        (second,) = torch.autograd.grad(gradient.double().square().sum(), x)
        results.append((y, gradient, second))
    (y, gradient, second), (y2, gradient2, second2) = results
    assert torch.equal(y, y2) and torch.equal(gradient, gradient2) and gradient2.dtype == dtype
    rounding = {torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-5)
    torch.testing.assert_close(second2, second, rtol=rounding, atol=rounding * float(second.abs().max()))


def test_of_bfloat16_nothing_is_kept_in_float32_but_the_variances() -> None:
    kept: list[Tensor] = []
    x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        recu_activation(x)
    assert [(t.dtype, t.numel()) for t in kept] == [(torch.bfloat16, 4 * 8 * 6 * 6), (torch.float32, 4)]


@pytest.mark.compiles
@pytest.mark.parametrize("wants_gradient", [True, False])
def test_it_compiles_whole(wants_gradient: bool) -> None:
    torch.compiler.reset()
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=random).requires_grad_(wants_gradient)
    y = torch.compile(recu_activation, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(y, recu_activation(x)) and y.requires_grad == wants_gradient
    if wants_gradient:
        incoming = torch.randn(3, 4, 5, generator=random)
        gradients = [torch.autograd.grad(form, x, incoming)[0] for form in (y, recu_activation(x))]
        torch.testing.assert_close(*gradients)


def test_of_torch_func_it_has_grad_and_no_vmap() -> None:
    x = torch.tensor([[0.5, -1.5, 0.25]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad((composed(leaf) * weights).sum(), leaf)
    assert torch.equal(torch.func.grad(lambda v: (recu_activation(v) * weights).sum())(x), expected)
    for form in (composed, recu_activation):
        with pytest.raises(RuntimeError, match="does not have vmap support"):
            torch.func.vmap(form)(x)


def test_the_smallest_numbers_keep_their_sign() -> None:
    """Divided by a spread above 1 they would be -0, whose sign is +1; evaluation takes the sign of x."""
    x = torch.tensor([[-1e-45, 1e-45, 100.0, -100.0]])
    assert recu_activation(x).tolist() == [[-1, 1, 1, -1]]
