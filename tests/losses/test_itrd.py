"""ITRD is the weighted sum of its two terms, has the paper's defaults, learns, and compiles."""

import math

import pytest
import torch
from helpers.representations import loop_correlation, loop_mutual_information, pair

from bnn_itrd.losses import (
    ITRD,
    correlation_loss,
    mutual_information_loss,
)


@pytest.mark.parametrize(("d_s", "d_t"), [(4, 4), (4, 6)])
def test_itrd_gradcheck(d_s: int, d_t: int) -> None:
    torch.manual_seed(0)
    itrd = ITRD(d_s, d_t).double()
    z_s, z_t = pair(5, d_s, d_t)
    assert torch.autograd.gradcheck(itrd, (z_s.requires_grad_(), z_t))


@pytest.mark.parametrize(("d_s", "d_t"), [(4, 4), (4, 6)])
def test_itrd_is_the_weighted_sum_of_its_terms(d_s: int, d_t: int) -> None:
    torch.manual_seed(0)
    itrd = ITRD(d_s, d_t, alpha=1.5, beta_corr=3.0, beta_mi=0.5).double()
    z_s, z_t = pair(9, d_s, d_t)
    weight, bias = itrd.embed.weight.detach().numpy(), itrd.embed.bias.detach().numpy()
    embedded = z_s.numpy() @ weight.T + bias
    corr = 3.0 * loop_correlation(embedded, z_t.numpy(), 1.5)
    mi = 0.5 * loop_mutual_information(z_s.numpy() if d_s == d_t else embedded, z_t.numpy(), False)
    parts = itrd.parts(z_s, z_t)
    assert list(parts) == ["corr", "mi"]
    assert parts["corr"].item() == pytest.approx(corr, abs=1e-10)
    assert parts["mi"].item() == pytest.approx(mi, abs=1e-10)
    assert itrd(z_s, z_t).item() == pytest.approx(corr + mi, abs=1e-10)
    assert itrd(z_s, z_t).dtype == torch.float64


def test_itrd_defaults_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    itrd = ITRD(4, 4)
    z_s, z_t = (z.float() for z in pair(9, 4))
    with torch.no_grad():
        want = 2 * correlation_loss(itrd.embed(z_s), z_t, alpha=1.01) + mutual_information_loss(z_s, z_t)
        torch.testing.assert_close(itrd(z_s, z_t), want)
    assert {k: tuple(v.shape) for k, v in itrd.named_parameters()} == {
        "embed.weight": (4, 4),
        "embed.bias": (4,),
    }


def test_itrd_skips_terms_with_beta_zero() -> None:
    z_s, z_t = (z.float() for z in pair(9, 4))
    assert list(ITRD(4, 4, beta_mi=0).parts(z_s, z_t)) == ["corr"]
    assert list(ITRD(4, 4, beta_corr=0).parts(z_s, z_t)) == ["mi"]
    assert ITRD(4, 4, beta_corr=0, beta_mi=0)(z_s, z_t).item() == 0
    itrd = ITRD(4, 4, beta_corr=0)
    z_s.requires_grad_()
    itrd(z_s, z_t).backward()
    assert itrd.embed.weight.grad is None
    assert z_s.grad is not None
    other = ITRD(4, 6, beta_corr=0)
    other(z_s, torch.randn(9, 6)).backward()
    assert other.embed.weight.grad is not None


def test_itrd_learns() -> None:
    """Gradient descent on the embedding alone finds a linear relation between the two sides."""
    torch.manual_seed(0)
    z_s = torch.randn(64, 4)
    z_t = z_s @ torch.randn(4, 4)
    itrd = ITRD(4, 4)
    optimiser = torch.optim.Adam(itrd.parameters(), lr=0.05)
    before = itrd.parts(z_s, z_t)["corr"].item()
    for _ in range(150):
        optimiser.zero_grad()
        itrd(z_s, z_t).backward()
        optimiser.step()
    floor = 2 * math.log2(4 * (1 / 64) ** 2.02)
    after = itrd.parts(z_s, z_t)["corr"].item()
    assert before > floor + 10
    assert floor - 1e-3 <= after < floor + 2


@pytest.mark.compiles
@pytest.mark.parametrize("autocast", [False, True])
def test_itrd_compiles_without_a_graph_break(autocast: bool) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    itrd = ITRD(4, 6)
    z_s, z_t = (z.float() for z in pair(9, 4, 6))
    compiled = torch.compile(itrd, fullgraph=True, backend="aot_eager")
    want = itrd(z_s, z_t)
    (want_grad,) = torch.autograd.grad(want, itrd.embed.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        got = compiled(z_s, z_t)
    (got_grad,) = torch.autograd.grad(got, itrd.embed.weight)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    # The compiler traces the backward pass under the autocast of the call, which eager mode does not.
    tolerance = 5e-2 if autocast else 1e-5
    torch.testing.assert_close(got_grad, want_grad, rtol=tolerance, atol=tolerance)
