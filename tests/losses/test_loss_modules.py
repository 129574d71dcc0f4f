"""Every loss with parameters or state: gradients, precision, inputs without information, small batches, compilation."""

import copy
from typing import Any

import pytest
import torch
from helpers.loss_modules import CASES, Args, apply_to_floats, build_module, seeded_loss
from torch import Tensor, nn

from bnn_itrd.losses.ab import AB
from bnn_itrd.losses.ft import FT
from bnn_itrd.losses.ickd import ICKD
from bnn_itrd.losses.reviewkd import ReviewKD
from bnn_itrd.losses.vid import VID
from bnn_itrd.losses.wcord import WCoRD


def flat_tensors(args: Any) -> list[Tensor]:
    return [args] if isinstance(args, Tensor) else [x for arg in args for x in flat_tensors(arg)]


def float_tensors(args: Args) -> list[Tensor]:
    return [x for x in flat_tensors(args) if x.is_floating_point()]


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    module = build_module(name).double()
    if name in ("crd", "wcord"):
        module(*CASES[name][1](4))
        module.eval()  # No writing.
    if isinstance(module, WCoRD):
        module.beta_local = 0  # Its plan is a constant by intention: test_wcord.py tests it.
    args = CASES[name][1](3)
    student = flat_tensors(args[0])
    parameters = [p for p in module.parameters() if p.requires_grad]
    if isinstance(module, FT):
        parameters = list(module.translator.parameters())

    def loss(*inputs: Tensor) -> Tensor:
        first = list(inputs) if isinstance(args[0], list) else inputs[0]
        return seeded_loss(module, (first, *args[1:]))

    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in student], fast_mode=True)
    if parameters:
        value = loss(*student)
        weight = max(parameters, key=torch.numel)
        (grad,) = torch.autograd.grad(value, weight)
        direction = torch.randn_like(weight)
        with torch.no_grad():
            weight += 1e-6 * direction
            above = loss(*student).item()
            weight -= 2e-6 * direction
            below = loss(*student).item()
        assert (above - below) / 2e-6 == pytest.approx((grad * direction).sum().item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    module = build_module(name)
    half = apply_to_floats(CASES[name][1](4), lambda x: x.to(dtype))
    want = seeded_loss(copy.deepcopy(module).double(), apply_to_floats(half, Tensor.double)).item()
    student = [x.requires_grad_() for x in float_tensors(half[:1])]
    loss = seeded_loss(module, half)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert loss.item() == pytest.approx(want, rel=1e-4, abs=1e-5)
    loss.backward()
    for x in student:
        assert x.grad is not None
        assert x.grad.dtype == dtype
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    module = build_module(name)
    args = apply_to_floats(CASES[name][1](4), lambda x: x.to(dtype))
    want = seeded_loss(copy.deepcopy(module), args)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = seeded_loss(module, args)
    assert got.dtype == want.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def _dead(x: Tensor, kind: str) -> Tensor:
    x = x.clone()
    if kind == "zero":
        return 0 * x
    if kind == "constant channel":
        x[:, 0] = 0.7
        x[:, -1] = 0
        return x
    if kind == "zero sample":
        x[0] = 0
        return x
    return torch.full_like(x, {"constant": -1.3, "tiny": 1e-20, "large": 1e4}[kind])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["zero", "constant channel", "zero sample", "constant", "tiny", "large"])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("name", CASES)
def test_dead_features_give_finite_losses_and_gradients(name: str, side: str, kind: str, dtype: torch.dtype) -> None:
    _check_dead_features(name, side, kind, dtype)


# Not "zero", "tiny" and "large": there true gradients can exceed float16 (batch normalisation of a constant map has a
# slope of 316, and FT's translator three of them).
@pytest.mark.parametrize("kind", ["constant channel", "zero sample", "constant"])
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("name", CASES)
def test_dead_features_in_float16(name: str, side: str, kind: str) -> None:
    _check_dead_features(name, side, kind, torch.float16)


def _check_dead_features(name: str, side: str, kind: str, dtype: torch.dtype) -> None:
    module = build_module(name)
    student, teacher, *rest = apply_to_floats(CASES[name][1](4), lambda x: x.to(dtype))
    if side != "teacher":
        student = apply_to_floats(student, lambda x: _dead(x, kind))
    if side != "student":
        teacher = apply_to_floats(teacher, lambda x: _dead(x, kind))
    inputs = [x.requires_grad_() for x in flat_tensors(student)]
    loss = seeded_loss(module, (student, teacher, *rest))
    assert loss.isfinite()
    assert loss.requires_grad
    loss.backward()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_small_batches(name: str, n: int) -> None:
    module = build_module(name)
    args = apply_to_floats(CASES[name][1](n), lambda x: x.float().requires_grad_())
    if n == 1 and name in ("srd", "srd_linear"):
        with pytest.raises(ValueError, match="z_s must have n >= 2 samples in training"):
            module(*args)
        return
    loss = seeded_loss(module, args)
    assert loss.isfinite()
    loss.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in float_tensors(args[:1]))


@pytest.mark.parametrize(
    ("module", "args"),
    [
        (VID((3, 1, 1), (2, 1, 1), batch_norm=True), (torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))),
        (ICKD((3, 1, 1), (2, 1, 1)), (torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))),
        (FT((3, 1, 1), (2, 1, 1)), (torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 1, 1))),
        (AB([(3, 1, 1)], [(2, 1, 1)]), ([torch.zeros(1, 3, 1, 1)], [torch.zeros(1, 2, 1, 1)])),
        (ReviewKD([(3, 1, 1)], [(2, 1, 1)]), ([torch.zeros(1, 3, 1, 1)], [torch.zeros(1, 2, 1, 1)])),
    ],
)
def test_batch_normalisation_of_one_value_raises(module: nn.Module, args: Args) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        module(*args)


@pytest.mark.compiles
@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("vid_paper", "srd_linear", "srd_plain", "ft_paper")]
)
def test_compiles_without_a_graph_break(name: str) -> None:
    torch.compiler.reset()
    module = build_module(name)
    twin = copy.deepcopy(module)
    args = apply_to_floats(CASES[name][1](4), lambda x: x.float().requires_grad_())
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    inputs = float_tensors(args[:1])
    for _ in range(2):  # Twice: the state of the first call is read by the second.
        want, got = seeded_loss(module, args), seeded_loss(compiled, args)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        pairs = zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(twin.state_dict().values(), module.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
