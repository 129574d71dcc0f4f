"""AT, SP, NST, FitNet, PKT, RKD, CC and DKD against NumPy loops, under invariances and without information."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.classic_losses import (
    CASES,
    EQUAL,
    LOSSES,
    MODULES,
    gradients,
    labels_of,
    loop_nst,
    loss_and_pair,
    modules_and_shapes,
    student_and_teacher,
    without_information,
)
from torch import Tensor

from bnn_itrd.losses.at import AT, at_loss
from bnn_itrd.losses.cc import CC, cc_consecutive_loss, cc_loss
from bnn_itrd.losses.dkd import DKD, dkd_loss
from bnn_itrd.losses.fitnet import FitNet, hint_loss
from bnn_itrd.losses.nst import nst_loss
from bnn_itrd.losses.pkt import pkt_loss
from bnn_itrd.losses.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from bnn_itrd.losses.sp import sp_loss


@pytest.mark.parametrize("name", CASES)
def test_equals_loop(name: str) -> None:
    case = CASES[name]
    for seed, shapes in enumerate(case.shapes):
        s, t = student_and_teacher(shapes, seed)
        want = case.loop(s.numpy(), t.numpy())
        got = case.loss(s, t)
        assert got.shape == ()
        assert got.dtype == torch.float64
        assert got.item() == pytest.approx(want, rel=1e-11, abs=1e-13)
        assert case.loss(s.float(), t.float()).item() == pytest.approx(want, rel=1e-4, abs=1e-6)
    assert want > 1e-4


@pytest.mark.parametrize("name", LOSSES)
def test_zero_where_student_is_teacher(name: str) -> None:
    s, _ = student_and_teacher(CASES[name].shapes[2])
    s.requires_grad_()
    loss = CASES[name].loss(s, s.detach())
    assert loss.item() == pytest.approx(0, abs=1e-12)
    # A minimum: no loss here is below 0.
    assert gradients(loss, s)[0].abs().max() < 1e-8


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    for shapes in CASES[name].shapes[1:3]:
        s, t = (x.requires_grad_() for x in student_and_teacher(shapes))
        assert torch.autograd.gradcheck(CASES[name].loss, (s, t))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    s, t = (x.to(dtype) for x in student_and_teacher(CASES[name].largest))
    want = CASES[name].loss(s.double(), t.double()).item()
    s.requires_grad_()
    loss = CASES[name].loss(s, t)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(want, rel=1e-4, abs=1e-6)
    (grad,) = gradients(loss, s)
    assert grad.dtype == dtype
    assert grad.isfinite().all()
    assert grad.any()
    assert CASES[name].loss(s.detach().double(), t.float()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*LOSSES, *(f"module_{name}" for name in MODULES)])
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    loss_fn, pair = loss_and_pair(name)
    s, t = (x.to(dtype).requires_grad_() for x in pair)
    want = loss_fn(s, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        got = loss_fn(s, t)
    got_grads = gradients(got, s, t)
    assert got.dtype == want.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
    for got_grad, want_grad in zip(got_grads, gradients(want, s, t), strict=True):
        torch.testing.assert_close(got_grad, want_grad)


@pytest.mark.compiles
@pytest.mark.parametrize("name", [*LOSSES, *(f"module_{name}" for name in MODULES)])
def test_compiles_without_a_graph_break(name: str) -> None:
    torch.compiler.reset()
    loss_fn, pair = loss_and_pair(name)
    s, t = (x.float().requires_grad_() for x in pair)
    want = loss_fn(s, t)
    # Before the second forward pass: it updates the running statistics in place.
    want_grads = gradients(want, s, t)
    got = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")(s, t)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-7)
    for got_grad, want_grad in zip(gradients(got, s, t), want_grads, strict=True):
        torch.testing.assert_close(got_grad, want_grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "how",
    [
        "zero sample",
        "zero feature",
        "constant feature",
        "equal samples",
        "constant",
        "zero",
        "tiny",
        "large",
        "opposite samples",
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_inputs_without_information_are_finite_and_attached(name: str, how: str, dtype: torch.dtype) -> None:
    for i in range(3):
        shapes = CASES[name].shapes[i]
        live_s, live_t = (x.to(dtype) for x in student_and_teacher(shapes))
        for s, t in (
            (without_information(live_s, how), live_t),
            (live_s, without_information(live_t, how)),
            (without_information(live_s, how), without_information(live_t, how)),
        ):
            s, t = s.requires_grad_(), t.requires_grad_()
            loss = CASES[name].loss(s, t)
            assert loss.isfinite()
            for grad in gradients(loss, s, t):
                assert grad.isfinite().all()


def test_values_of_zero_maps() -> None:
    """A zero side has no attention map and no similarity: what remains is the other side's."""
    s, t = student_and_teacher(((3, 4, 2, 2), (3, 5, 2, 2)))
    assert at_loss(0 * s, t).item() == pytest.approx(1 / 4)
    assert sp_loss(0 * s, t).item() == pytest.approx(1 / 3)
    assert at_loss(0 * s, 0 * t).item() == sp_loss(0 * s, 0 * t).item() == nst_loss(0 * s, 0 * t).item() == 0
    assert nst_loss(0 * s, t).item() == pytest.approx(loop_nst(0 * s.numpy(), t.numpy()))
    assert rkd_distance_loss(torch.ones(3, 2), torch.tensor([[0.0], [1], [2]])).item() == pytest.approx(
        (4 * 0.75**2 / 2 + 2 * 1) / 9
    )


# Invariances.


PERMUTABLE = [name for name in LOSSES if not name.startswith(("cc_consecutive", "dkd"))]


@pytest.mark.parametrize("name", PERMUTABLE)
def test_order_of_samples_does_not_matter(name: str) -> None:
    s, t = student_and_teacher(CASES[name].largest)
    order = torch.roll(torch.arange(len(s)), 1)
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s[order], t[order]).item() == pytest.approx(base, rel=1e-10)
    assert CASES[name].loss(s[order], t).item() != pytest.approx(base, rel=1e-4)


def test_order_of_samples_of_dkd_and_of_the_consecutive_form() -> None:
    s, t = student_and_teacher(EQUAL[-1])
    order = torch.tensor([3, 0, 7, 1, 5, 2, 6, 4])
    got = dkd_loss(s[order], t[order], labels_of(s)[order])
    assert got.item() == pytest.approx(dkd_loss(s, t, labels_of(s)).item(), rel=1e-10)
    base = cc_consecutive_loss(s, t).item()
    assert cc_consecutive_loss(s[order], t[order]).item() != pytest.approx(base, rel=1e-3)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 1e6])
@pytest.mark.parametrize("name", ["at", "at_p4", "sp", "sp_vectors", "nst", "pkt", "rkd", "cc"])
def test_scale_does_not_matter(name: str, factor: float) -> None:
    s, t = student_and_teacher(CASES[name].largest)
    base = CASES[name].loss(s, t).item()
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        got_s = CASES[name].loss((factor * s).to(dtype), t.to(dtype)).item()
        got_t = CASES[name].loss(s.to(dtype), (factor * t).to(dtype)).item()
        assert got_s == pytest.approx(base, rel=tolerance)
        assert got_t == pytest.approx(base, rel=tolerance)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_shift_of_all_samples_does_not_matter(name: str) -> None:
    s, t = student_and_teacher(CASES[name].largest)
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s + torch.arange(s.shape[1]), t - 5).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize(
    ("name", "axes"), [("at", (0,)), ("at_p4", (0,)), ("nst", (0, 1)), ("pkt", (0,)), ("cc", (0,))]
)
def test_scale_of_a_sample_or_channel_does_not_matter(name: str, axes: tuple[int, ...]) -> None:
    s, t = student_and_teacher(CASES[name].largest)
    shape = [size if axis in axes else 1 for axis, size in enumerate(s.shape)]
    factors = 10.0 ** torch.linspace(-3, 3, math.prod(shape)).reshape(shape)
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s * factors, t).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize("name", ["sp", "sp_vectors", "rkd", "hint", "cc_consecutive"])
def test_scale_of_a_sample_matters_elsewhere(name: str) -> None:
    s, t = student_and_teacher(CASES[name].largest)
    base = CASES[name].loss(s, t).item()
    s[0] *= 3
    assert CASES[name].loss(s, t).item() != pytest.approx(base, rel=1e-3)


@pytest.mark.parametrize("name", ["at", "nst", "sp"])
def test_order_of_channels_does_not_matter(name: str) -> None:
    s, t = student_and_teacher(((3, 4, 3, 3), (3, 4, 3, 3)))
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s.flip(1), t).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize("name", ["at", "nst"])
def test_order_of_positions_matters_to_spatial_losses(name: str) -> None:
    s, t = student_and_teacher(((3, 4, 3, 3), (3, 4, 3, 3)))
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s.flip(2), t).item() != pytest.approx(base, rel=1e-3)
    assert CASES[name].loss(s.flip(2), t.flip(2)).item() == pytest.approx(base, rel=1e-10)


@pytest.mark.parametrize("name", ["sp_vectors", "pkt", "rkd", "cc"])
def test_rotation_of_the_features_does_not_matter(name: str) -> None:
    s, t = student_and_teacher(((6, 4), (6, 4)))
    rotation, _ = torch.linalg.qr(torch.from_numpy(np.random.default_rng(1).normal(size=(4, 4))))
    base = CASES[name].loss(s, t).item()
    assert CASES[name].loss(s @ rotation, t).item() == pytest.approx(base, rel=1e-10)
    # As where the student is a rotated teacher.
    assert CASES[name].loss(t @ rotation, t).item() == pytest.approx(0, abs=1e-10)


# The modules.


@pytest.mark.parametrize("name", MODULES)
def test_modules_gradcheck_and_train_their_parameters(name: str) -> None:
    module, shapes = modules_and_shapes()[name]
    module = module.double()
    s, t = student_and_teacher(shapes)
    assert torch.autograd.gradcheck(module, (s.requires_grad_(), t))
    module(s, t).backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("how", ["constant feature", "constant", "zero", "equal samples"])
def test_modules_of_inputs_without_information(name: str, n: int, how: str) -> None:
    module, shapes = modules_and_shapes()[name]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        s, t = (x.to(dtype) for x in student_and_teacher(((n, *shapes[0][1:]), (n, *shapes[1][1:]))))
        s, t = without_information(s, how).requires_grad_(), without_information(t, how)
        loss = module(s, t)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        for grad in gradients(loss, s, *module.parameters()):
            assert grad.isfinite().all()


def test_module_defaults_are_the_published_ones() -> None:
    assert (DKD().alpha, DKD().beta, DKD().tau) == (1, 8, 4)
    assert AT().p == 2
    s, t = student_and_teacher(((3, 2, 4, 4), (3, 5, 4, 4)))
    assert AT()(s, t).item() == at_loss(s, t).item()
    s, t = student_and_teacher(((3, 4), (3, 4)))
    assert DKD()(s, t, labels_of(s)).item() == dkd_loss(s, t, labels_of(s)).item()
    assert repr(DKD()) == "DKD(alpha=1.0, beta=8.0, tau=4.0)"
    assert repr(RKD()) == "RKD(distance=25.0, angle=50.0)"


def _z(*shape: int) -> Tensor:
    return torch.zeros(*shape)


MAP_LOSSES = [at_loss, nst_loss]
VECTOR_LOSSES = [pkt_loss, rkd_distance_loss, rkd_angle_loss, RKD(), cc_loss]


@pytest.mark.parametrize("loss", MAP_LOSSES)
def test_bad_maps(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    for s, t, message in (
        (_z(2, 3, 4), _z(2, 3, 4, 4), r"student_map must be \(n, c, h, w\) .*, got \(2, 3, 4\)"),
        (_z(2, 3, 4, 4), _z(2, 3), r"teacher_map must be \(n, c, h, w\) .*, got \(2, 3\)"),
        (_z(2, 3, 4, 4), _z(3, 3, 4, 4), r"student_map and teacher_map must have the same batch size, got 2 and 3"),
        (_z(2, 0, 4, 4), _z(2, 3, 4, 4), r"student_map must be .* without an empty axis, got \(2, 0, 4, 4\)"),
        (_z(2, 3, 4, 4).to(torch.cfloat), _z(2, 3, 4, 4), r"student_map must be real, got torch.complex64"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(s, t)


@pytest.mark.parametrize("loss", VECTOR_LOSSES)
def test_bad_representations(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    for s, t, message in (
        (_z(8), _z(8, 3), r"z_s must be 2-D without an empty axis, got shape \(8,\)"),
        (_z(8, 3), _z(8, 3, 1), r"z_t must be 2-D .*, got shape \(8, 3, 1\)"),
        (_z(8, 3), _z(7, 3), r"z_s and z_t must have the same batch size, got \(8, 3\) and \(7, 3\)"),
        (_z(0, 3), _z(0, 3), r"z_s must be 2-D without an empty axis, got shape \(0, 3\)"),
        (_z(8, 3), _z(8, 3).to(torch.cfloat), r"z_t must be real, got torch.complex64"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(s, t)


_LABELS = torch.zeros(8, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: at_loss(_z(2, 3, 4, 4), _z(2, 3, 4, 4), p=0.5), r"p must be >= 1 and finite, got 0.5"),
        (lambda: AT(math.inf), r"p must be >= 1 and finite, got inf"),
        (lambda: AT(math.nan), r"p must be >= 1 and finite, got nan"),
        (lambda: sp_loss(_z(8), _z(8, 3)), r"student must be real and \(n, ...\) .* of shape \(8,\)"),
        (lambda: sp_loss(_z(8, 3), _z(8, 0)), r"teacher must be real .* empty axis, .* of shape \(8, 0\)"),
        (lambda: sp_loss(_z(8, 3), _z(7, 3)), r"student and teacher must have the same batch size, got 8 and 7"),
        (lambda: sp_loss(_z(8, 3).to(torch.cfloat), _z(8, 3)), r"student must be real .* got torch.complex64"),
        (lambda: hint_loss(_z(2, 3, 4), _z(2, 3, 4, 4)), r"guided must be \(n, c, h, w\) .*, got \(2, 3, 4\)"),
        (lambda: hint_loss(_z(2, 3, 4, 4), _z(2, 5, 4, 4)), r"must have the same number of channels, got 3 and 5"),
        (lambda: hint_loss(_z(2, 3, 4, 4), _z(1, 3, 4, 4)), r"hint must have the same batch size, got 2 and 1"),
        (lambda: FitNet((3, 4), (5, 4, 4)), r"student_shape must be \(c, h, w\) with integers >= 1, got \(3, 4\)"),
        (lambda: FitNet((3, 4, 4), (0, 4, 4)), r"teacher_shape must be \(c, h, w\) .*, got \(0, 4, 4\)"),
        (
            lambda: FitNet((3, 4, 4), (5, 4, 4))(_z(2, 4, 4, 4), _z(2, 5, 4, 4)),
            r"student_map must be \(n, 3, h, w\) .*, got \(2, 4, 4, 4\)",
        ),
        (
            lambda: FitNet((3, 4, 4), (5, 4, 4))(_z(2, 3, 4, 4), _z(2, 3, 4, 4)),
            r"teacher_map must be \(n, 5, h, w\) .*, got \(2, 3, 4, 4\)",
        ),
        (lambda: dkd_loss(_z(8, 4), _z(8, 5), _LABELS), r"must have the same shape \(n, k\), got \(8, 4\)"),
        (lambda: dkd_loss(_z(8, 1), _z(8, 1), _LABELS), r"student must have k >= 2 classes, got shape \(8, 1\)"),
        (lambda: dkd_loss(_z(8), _z(8, 4), _LABELS), r"student must be 2-D .*, got shape \(8,\)"),
        (lambda: dkd_loss(_z(7, 4), _z(7, 4), _LABELS), r"labels must be int64 of shape \(7,\), .* \(8,\)"),
        (lambda: dkd_loss(_z(8, 4), _z(8, 4), _LABELS.float()), r"labels must be int64 .*, got torch.float32"),
        (lambda: dkd_loss(_z(8, 4), _z(8, 4), _LABELS[:, None]), r"labels must be int64 .* of shape \(8, 1\)"),
        (lambda: dkd_loss(_z(8, 4), _z(8, 4), _LABELS, tau=0.0), r"tau must be > 0 and finite, got 0.0"),
        (lambda: DKD(alpha=-1.0), r"alpha must be >= 0 and finite, got -1.0"),
        (lambda: DKD(beta=math.inf), r"beta must be >= 0 and finite, got inf"),
        (lambda: DKD(tau=-4.0), r"tau must be > 0 and finite, got -4.0"),
        (lambda: RKD(distance=-25.0), r"distance must be >= 0 and finite, got -25.0"),
        (lambda: RKD(angle=math.nan), r"angle must be >= 0 and finite, got nan"),
        (lambda: cc_loss(_z(8, 3), _z(8, 3), gamma=0.0), r"gamma must be > 0 and finite, got 0.0"),
        (lambda: cc_loss(_z(8, 3), _z(8, 3), order=0), r"order must be an integer >= 1, got 0"),
        (lambda: cc_consecutive_loss(_z(8, 3), _z(8, 4)), r"must have the same shape \(n, d\), got \(8, 3\)"),
        (lambda: CC(0, 4), r"student_dim must be an integer >= 1, got 0"),
        (lambda: CC(4, 0), r"teacher_dim must be an integer >= 1, got 0"),
        (lambda: CC(4, 4, embed_dim=0), r"embed_dim must be an integer >= 1, got 0"),
        (lambda: CC(4, 4, form="mmd"), r"form must be \"consecutive\" or \"kernel\", got 'mmd'"),
        (lambda: CC(4, 4, gamma=-1.0), r"gamma must be > 0 and finite, got -1.0"),
        (lambda: CC(4, 4, order=0), r"order must be an integer >= 1, got 0"),
        (lambda: CC(4, 6)(_z(8, 5), _z(8, 6)), r"z_s must be \(n, 4\) with n >= 1, got \(8, 5\)"),
        (lambda: CC(4, 6)(_z(8, 4), _z(8, 4)), r"z_t must be \(n, 6\) with n >= 1, got \(8, 4\)"),
        (lambda: CC(4, 6)(_z(8, 4), _z(7, 6)), r"got \(8, 128\) and \(7, 128\)"),
    ],
)
def test_bad_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
