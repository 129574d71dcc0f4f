"""The switches of ITRD against NumPy loops, with dead features, in half precision, and in runs begun without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bnn_itrd.config.trees import differences
from bnn_itrd.distillers import METHODS
from bnn_itrd.distillers.base import Distiller
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting, Sizes
from bnn_itrd.losses import ITRD, correlation_loss, mutual_information_loss, renyi_entropy
from bnn_itrd.losses.mutual_information import gram_matrix
from bnn_itrd.losses.renyi import tsallis_entropy

Array = np.ndarray[Any, np.dtype[np.float64]]
Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "sum": lambda s, t: correlation_loss(s, t, log=False),
    "off-diagonal": lambda s, t: correlation_loss(s, t, alpha=1.2, off_diagonal=0.3, decorrelation=0.2),
    "steep off-diagonal": lambda s, t: correlation_loss(s, t, alpha=0.4, off_diagonal=0.3, log=False),
    "order 0.5": lambda s, t: mutual_information_loss(s, t, order=0.5, log=True),
    "order 1": lambda s, t: mutual_information_loss(s, t, order=1.0),
    "order 3": lambda s, t: mutual_information_loss(s, t, order=3.0, degree=2),
    "degree 3": lambda s, t: mutual_information_loss(s, t, degree=3, log=True),
}


def _pair(n: int, d_s: int, d_t: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(n)
    z_t = rng.normal(1.0, 2.0, (n, d_t))
    z_s = rng.normal(-0.5, 0.7, (n, d_s))
    z_s[:, : min(d_s, d_t)] += 0.3 * z_t[:, : min(d_s, d_t)]
    return torch.from_numpy(z_s), torch.from_numpy(z_t)


# Independent versions: loops that follow the formulas.


def _standardised(z: Array) -> Array:
    return np.stack([(column - column.mean()) / column.std(ddof=1) for column in z.T], axis=1)


def _loop_correlation(z_s: Array, z_t: Array, alpha: float, off_diagonal: float, decorrelation: float) -> float:
    n, d = z_s.shape
    s, t = _standardised(z_s), _standardised(z_t)
    total = 0.0
    for i in range(d):
        for j in range(d):
            cross = sum(s[b, i] * t[b, j] for b in range(n)) / n
            own = sum(s[b, i] * s[b, j] for b in range(n)) / n
            if i == j:
                total += abs(cross - 1) ** (2 * alpha)
            else:
                total += off_diagonal * abs(cross) ** (2 * alpha) + decorrelation * abs(own) ** (2 * alpha)
    return total


def _unit_trace(z_s: Array, z_t: Array, degree: int) -> tuple[Array, Array]:
    """G_s and G_st of eq. 8."""
    n = len(z_s)
    g_s, g_st = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            cosines = [z[i] @ z[j] / math.sqrt(z[i] @ z[i]) / math.sqrt(z[j] @ z[j]) for z in (z_s, z_t)]
            g_s[i, j] = cosines[0] ** degree
            g_st[i, j] = (cosines[0] * cosines[1]) ** degree
    return g_s / np.trace(g_s), g_st / np.trace(g_st)


def _loop_information(z_s: Array, z_t: Array, order: float, log: bool, degree: int) -> float:
    matrices = _unit_trace(z_s, z_t, degree)
    if order == 1:
        spectra = [[x for x in np.linalg.eigvalsh(g) if x > 1e-12] for g in matrices]
        s, st = (-sum(x * (math.log2(x) if log else math.log(x)) for x in spectrum) for spectrum in spectra)
        return st - s
    if order == int(order):
        s, st = (float(np.trace(np.linalg.matrix_power(g, int(order)))) for g in matrices)
    else:
        s, st = (sum(float(x) ** order for x in np.linalg.eigvalsh(g) if x > 1e-12) for g in matrices)
    return (math.log2(st) - math.log2(s) if log else st - s) / (1 - order)


def test_the_default_has_the_bits_of_algorithm_1() -> None:
    """A run that was begun before the switches goes on with the same numbers: gradients add up in this order."""
    torch.manual_seed(1)
    z, z_t = torch.randn(8, 5), torch.randn(8, 5)
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss = mutual_information_loss(ours, z_t)
    loss.backward()
    rows = [each * each.square().sum(1, keepdim=True).rsqrt() for each in (theirs, z_t)]
    g_s, g_t = (torch.einsum("id,jd->ij", each, each) for each in rows)
    marginal = g_s.square().sum() / torch.trace(g_s).square()
    g_st = g_s * g_t
    expected = marginal - g_st.square().sum() / torch.trace(g_st).square()
    expected.backward()
    assert theirs.grad is not None and ours.grad is not None
    assert torch.equal(loss, expected) and torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(
    ("alpha", "off_diagonal", "decorrelation"),
    [(1.01, 0.0, 0.0), (1.0, 0.0051, 0.0), (1.5, 0.0, 0.3), (0.4, 0.7, 0.2)],
)
def test_the_correlation_loss_equals_a_loop(alpha: float, off_diagonal: float, decorrelation: float, log: bool) -> None:
    z_s, z_t = _pair(7, 4, 4)
    want = _loop_correlation(z_s.numpy(), z_t.numpy(), alpha, off_diagonal, decorrelation)
    got = correlation_loss(z_s, z_t, alpha=alpha, log=log, off_diagonal=off_diagonal, decorrelation=decorrelation)
    assert got.item() == pytest.approx(math.log2(want) if log else want, rel=1e-10)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("order", [0.5, 1.0, 1.01, 2.0, 3.0, 4.0])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(5, 7, 3), (9, 3, 4)])
def test_the_mutual_information_loss_equals_a_loop(
    n: int, d_s: int, d_t: int, order: float, degree: int, log: bool
) -> None:
    z_s, z_t = _pair(n, d_s, d_t)
    want = _loop_information(z_s.numpy(), z_t.numpy(), order, log, degree)
    got = mutual_information_loss(z_s, z_t, order=order, log=log, degree=degree)
    assert got.item() == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("log", [True, False])
def test_the_eigenvalues_give_what_the_frobenius_norms_give(log: bool) -> None:
    z_s, z_t = _pair(9, 4, 5)
    fast = mutual_information_loss(z_s, z_t, log=log)
    near = mutual_information_loss(z_s, z_t, log=log, order=2 + 1e-12)
    assert near.item() == pytest.approx(fast.item(), abs=1e-10)


def test_tsallis_entropy_of_known_spectra() -> None:
    gram = torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
    assert tsallis_entropy(gram).item() == pytest.approx(1 - 10 / 16)
    assert tsallis_entropy(gram, alpha=0.5).item() == pytest.approx(2 * (math.sqrt(0.75) + 0.5 - 1))
    assert tsallis_entropy(gram, alpha=1.0).item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert tsallis_entropy(0 * gram, alpha=0.5).item() == 0
    with pytest.raises(ValueError, match=r"gram must be square, got \(2, 3\)"):
        tsallis_entropy(torch.zeros(2, 3))


def test_the_rounding_of_a_matrix_without_full_rank_is_no_entropy() -> None:
    """Six features of 64 samples: 58 eigenvalues are rounding, whose roots would add up to more than the others'."""
    z, _ = _pair(64, 6, 6)
    gram = z @ z.T
    exact = renyi_entropy(gram, alpha=0.1).item()
    assert exact <= math.log2(6)
    assert renyi_entropy(gram.float(), alpha=0.1).item() == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    z_s, z_t = (z.requires_grad_() for z in _pair(5, 6, 6))
    assert torch.autograd.gradcheck(LOSSES[name], (z_s, z_t))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_and_autocast_change_nothing(name: str, dtype: torch.dtype) -> None:
    z_s, z_t = (z.to(dtype) for z in _pair(16, 24, 24))
    want = LOSSES[name](z_s.double(), z_t.double()).item()
    z_s.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](z_s, z_t)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want, rel=1e-4, abs=1e-4)
    loss.backward()
    assert z_s.grad is not None and z_s.grad.dtype == dtype and z_s.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["one sample", "zero", "constant", "dead feature", "zero sample", "identical", "tiny"])
@pytest.mark.parametrize("side", ["student", "both"])
@pytest.mark.parametrize("name", LOSSES)
def test_dead_features_are_finite_and_attached(name: str, side: str, case: str, dtype: torch.dtype) -> None:
    z_s, z_t = (z.float() for z in _pair(1 if case == "one sample" else 6, 4, 4))
    for z in (z_s, z_t) if side == "both" else (z_s,):
        if case == "dead feature":
            z[:, 1] = 0.7
        elif case == "zero sample":
            z[2] = 0
        elif case in ("zero", "constant", "tiny"):
            z.copy_({"zero": torch.zeros(1), "constant": torch.full((1,), -1.3), "tiny": 1e-20 * z}[case])
    if case == "identical":
        z_s.copy_(z_t)
    z_s, z_t = z_s.to(dtype).requires_grad_(), z_t.to(dtype)
    loss = LOSSES[name](z_s, z_t)
    assert loss.isfinite() and loss.requires_grad
    loss.backward()
    assert z_s.grad is not None and z_s.grad.isfinite().all()


def test_a_dead_feature_has_no_gradient_of_the_other_entries() -> None:
    z_s, z_t = _pair(6, 4, 4)
    z_s[:, 1] = 0.7
    z_s.requires_grad_()
    correlation_loss(z_s, z_t, off_diagonal=1.0, decorrelation=1.0, alpha=0.3).backward()
    assert z_s.grad is not None
    assert not z_s.grad[:, 1].any() and z_s.grad[:, 0].any()


SWITCHES: dict[str, Any] = {
    "corr_log": False,
    "off_diagonal": 0.0051,
    "decorrelation": 0.1,
    "log": True,
    "order": 1.5,
    "degree": 2,
}


@pytest.mark.parametrize(("d_s", "d_t"), [(4, 4), (4, 6)])
def test_itrd_hands_every_switch_to_its_loss(d_s: int, d_t: int) -> None:
    itrd = ITRD(d_s, d_t, beta_corr=3.0, beta_mi=0.5, alpha=1.5, **SWITCHES).double()
    z_s, z_t = _pair(9, d_s, d_t)
    embedded = z_s.numpy() @ itrd.embed.weight.detach().numpy().T + itrd.embed.bias.detach().numpy()
    corr = 3.0 * _loop_correlation(embedded, z_t.numpy(), 1.5, 0.0051, 0.1)
    compared = z_s.numpy() if d_s == d_t else embedded
    mi = 0.5 * _loop_information(compared, z_t.numpy(), 1.5, True, 2)
    parts = itrd.parts(z_s, z_t)
    assert parts["corr"].item() == pytest.approx(corr, abs=1e-9)
    assert parts["mi"].item() == pytest.approx(mi, abs=1e-9)


def _made(config: Any) -> Distiller:
    class Learning:
        methods: dict[str, Any] = {"itrd": config}  # noqa: RUF012

    sizes = Sizes(10, 4, ())
    distiller = make_distillers(Learning(), Setting(sizes, sizes, torch.zeros(0)))["itrd"]
    assert isinstance(distiller, Distiller)
    return distiller


def test_the_options_reach_the_loss_and_draw_no_random_number() -> None:
    torch.manual_seed(0)
    plain: Any = _made(METHODS["itrd"]())
    after = torch.rand(3)
    torch.manual_seed(0)
    switched: Any = _made(METHODS["itrd"](**SWITCHES))
    assert torch.equal(torch.rand(3), after)
    assert {name: getattr(switched.loss, name) for name in SWITCHES} == SWITCHES
    # What a checkpoint holds is the same, so either is continued from the same state.
    for (name, a), (other, b) in zip(plain.state_dict().items(), switched.state_dict().items(), strict=True):
        assert name == other and torch.equal(a, b)


def test_a_run_from_before_the_switches_goes_on_and_one_with_another_switch_does_not() -> None:
    from bnn_itrd.config.distillers import DistillConfig

    saved = {"distill": DistillConfig(itrd=METHODS["itrd"]()).tree()}
    for name in SWITCHES:
        del saved["distill"]["itrd"][name]
    assert differences(saved, {"distill": DistillConfig(itrd=METHODS["itrd"]()).tree()}) == []
    other = {"distill": DistillConfig(itrd=METHODS["itrd"](order=3.0)).tree()}
    assert differences(saved, other) == ["distill.itrd.order: 2.0 there, 3.0 given"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ITRD(4, 4, order=0.0), "order must be > 0 and finite, got 0.0"),
        (lambda: ITRD(4, 4, degree=0), "degree must be an integer >= 1, got 0"),
        (lambda: ITRD(4, 4, off_diagonal=-1.0), "off_diagonal must be >= 0 and finite, got -1.0"),
        (lambda: ITRD(4, 4, decorrelation=math.inf), "decorrelation must be >= 0 and finite, got inf"),
        (lambda: METHODS["itrd"](order=0.0), "itrd.order must be > 0"),
        (lambda: METHODS["itrd"](degree=0), "itrd.degree must be an integer >= 1"),
        (lambda: METHODS["itrd"](off_diagonal=-0.1), "itrd.off_diagonal must be >= 0"),
    ],
)
def test_bad_switches(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_every_finding_of_a_paper_is_that_of_an_option() -> None:
    for kind in METHODS.values():
        assert all(hasattr(kind(), option) for option in kind.facts.found)
    assert {*SWITCHES} <= {*METHODS["itrd"].facts.found}


def test_a_gram_matrix_of_a_higher_degree() -> None:
    assert gram_matrix(torch.eye(2), degree=3).tolist() == [[1, 0], [0, 1]]
