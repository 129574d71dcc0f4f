"""Signs, binarisers and binary layers against independent NumPy versions, loops and finite differences."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn_itrd.quant import (
    ACTIVATIONS,
    SCHEMES,
    SURROGATES,
    WEIGHTS,
    BinaryConv2d,
    BinaryLinear,
    BinaryWeight,
    ReCUWeight,
    Scheme,
    WeightBinarizer,
    XNORWeight,
    as_scheme,
    recu_activation,
    recu_tau,
    recu_weight,
    set_progress,
    sign,
)

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


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def numerical_gradient(f: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences, entry by entry."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (f(up) - f(down)) / (2 * step)
    return gradient


# ---- sign


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


# ---- ReCU weights


def loop_recu(w: np.ndarray, tau: float) -> tuple[np.ndarray, float]:
    """(w^, Q), filter by filter and entry by entry, in float64."""
    standardised = np.empty_like(w)
    for o in range(w.shape[0]):
        entries = [float(v) for v in w[o].flat]
        n = len(entries)
        mean = sum(entries) / n
        variance = sum((v - mean) ** 2 for v in entries) / (n - 1) if n > 1 else 0.0
        for i in np.ndindex(*w.shape[1:]):
            standardised[(o, *i)] = (w[(o, *i)] - mean) * 2 * math.sqrt(2) / math.sqrt(variance + 1e-5)
    b = sum(abs(float(v)) for v in standardised.flat) / standardised.size
    return standardised, -b * math.log(2 - 2 * tau)


@pytest.mark.parametrize("tau", [0.85, 0.93, 0.99])
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 7), (3, 1, 5, 1)])
def test_recu_weight_forward(shape: tuple[int, ...], tau: float) -> None:
    w = rand(*shape, dtype=torch.float64)
    standardised, bound = loop_recu(w.numpy(), tau)
    assert bound > 0
    want = np.where(np.clip(standardised, -bound, bound) >= 0, 1.0, -1.0)
    np.testing.assert_array_equal(recu_weight(w, tau=tau).numpy(), want)
    np.testing.assert_array_equal(recu_weight(w.float(), tau=torch.tensor(tau)).numpy(), want)


@pytest.mark.parametrize("tau", [0.85, 0.95])
def test_recu_weight_gradient(tau: float) -> None:
    w = rand(3, 2, 2, 3, seed=1, dtype=torch.float64).requires_grad_()
    incoming = rand(3, 2, 2, 3, seed=2, dtype=torch.float64)
    recu_weight(w, tau=tau).backward(incoming)
    start = w.detach().numpy()
    standardised, bound = loop_recu(start, tau)
    assert 0 < (np.abs(standardised) > bound).sum() < start.size, "some entries are clamped, not all"
    assert np.abs(np.abs(standardised) - bound).min() > 1e-4, "no entry sits on the kink"

    def surrogate(v: np.ndarray) -> float:
        # The sign is the identity, Q a constant: what the backward pass differentiates.
        return float((incoming.numpy() * np.clip(loop_recu(v, tau)[0], -bound, bound)).sum())

    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), numerical_gradient(surrogate, start), rtol=1e-6, atol=1e-7)


def test_recu_weight_gradient_is_cut_outside_the_bound() -> None:
    w = rand(3, 2, 3, 3, seed=1, dtype=torch.float64).requires_grad_()
    standardised, bound = loop_recu(w.detach().numpy(), 0.85)
    outside = torch.from_numpy(np.abs(standardised) > bound)
    signs = recu_weight(w, tau=0.85)
    (cut,) = torch.autograd.grad(signs, w, outside.double(), retain_graph=True)
    assert outside.any() and torch.count_nonzero(cut) == 0
    (passed,) = torch.autograd.grad(signs, w, (~outside).double())
    assert torch.count_nonzero(passed) == w.numel(), "mean and variance reach every entry"


@pytest.mark.parametrize("w", [rand(4, 1, 1, 1), rand(4, 1), torch.full((3, 2, 3, 3), 0.25), torch.zeros(2, 5)])
def test_recu_weight_survives_one_element_and_dead_filters(w: Tensor) -> None:
    w = w.clone().requires_grad_()
    signs = recu_weight(w, tau=0.9)
    signs.sum().backward()
    assert torch.equal(signs, torch.ones_like(w)), "w - mean is 0, and the sign of 0 is +1"
    assert w.grad is not None and w.grad.isfinite().all()


def test_a_dead_filter_leaves_the_others_alone() -> None:
    w = rand(4, 3, 3, 3)
    w[1] = 0
    signs = recu_weight(w, tau=0.9)
    assert torch.equal(signs[[0, 2, 3]], recu_weight(w[[0, 2, 3]], tau=0.9))


def test_recu_tau() -> None:
    assert recu_tau(torch.tensor(0.0)).item() == pytest.approx(0.85)
    assert recu_tau(torch.tensor(1.0)).item() == pytest.approx(0.99)
    for p in np.linspace(0, 1, 7):
        a = (0.97 - 0.6) / (math.e - 1)
        got = recu_tau(torch.tensor(p, dtype=torch.float64), tau_min=0.6, tau_max=0.97)
        assert got.item() == pytest.approx(a * math.exp(p) + 0.6 - a)


def test_recu_weight_anneals_the_gradient_and_not_the_signs() -> None:
    layer = BinaryConv2d(3, 4, 3)
    values, gradients = [], []
    for p in (0.0, 1.0):
        set_progress(layer, p)
        layer.zero_grad()
        signs = layer.binary_weight().signs
        (signs * rand(4, 3, 3, 3)).sum().backward()
        assert layer.weight.grad is not None
        values.append(signs.detach())
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*values) and not torch.allclose(*gradients)


# ---- ReCU activations


def numpy_surrogate_of_activation(x: np.ndarray, incoming: np.ndarray) -> float:
    """sum(g * F(x / sqrt(var + eps))) per sample, F the integral of max(2 - 2|a|, 0)."""
    total = 0.0
    for sample, g in zip(x, incoming, strict=True):
        n, mean = sample.size, sample.sum() / sample.size
        variance = ((sample - mean) ** 2).sum() / (n - 1)
        a = np.clip(sample / math.sqrt(variance + 1e-5), -1, 1)
        total += float((g * (2 * a - a * np.abs(a))).sum())
    return total


def test_recu_activation_gradient() -> None:
    x = (2 + 3 * rand(2, 3, 2, 2, seed=3, dtype=torch.float64)).requires_grad_()
    incoming = rand(2, 3, 2, 2, seed=4, dtype=torch.float64)
    recu_activation(x).backward(incoming)
    want = numerical_gradient(lambda v: numpy_surrogate_of_activation(v, incoming.numpy()), x.detach().numpy())
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_recu_activation_has_the_signs_of_x(dtype: torch.dtype) -> None:
    x = (5 * rand(4, 3, 5, 5, dtype=dtype)).to(dtype)
    x[0, 0, 0, :2] = torch.tensor([0.0, -0.0])
    y = recu_activation(x)
    assert y.dtype == dtype
    assert torch.equal(y, torch.where(x >= 0, 1.0, -1.0).to(dtype))


@pytest.mark.filterwarnings("ignore:var.*degrees of freedom")
@pytest.mark.parametrize("x", [torch.zeros(2, 3, 4, 4), torch.full((2, 1), -3.0), torch.empty(0, 3, 4, 4)])
def test_recu_activation_of_constant_single_and_empty_samples(x: Tensor) -> None:
    x = x.clone().requires_grad_()
    y = recu_activation(x)
    y.sum().backward()
    assert torch.equal(y, torch.where(x >= 0, 1.0, -1.0))
    assert x.grad is not None and x.grad.isfinite().all()


def test_recu_activation_of_one_axis_is_one_sample() -> None:
    """Its gradient depends on the variance, which has to be the row's."""
    row, one = (3 * rand(1, 9)).requires_grad_(), (3 * rand(9)).requires_grad_()
    (recu_activation(row) * rand(1, 9, seed=1)).sum().backward()
    (recu_activation(one) * rand(9, seed=1)).sum().backward()
    assert row.grad is not None and one.grad is not None and one.grad.abs().max() > 0
    torch.testing.assert_close(one.grad, row.grad[0])


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_are_the_sign_of_presign_in_both_modes(name: str) -> None:
    binarizer, x = Scheme(activation=name).make_activation(3), rand(4, 3, 5, 5)
    want = sign(binarizer.presign(x))
    assert torch.equal(binarizer.train()(x), want)
    assert torch.equal(binarizer.eval()(x), want)


@pytest.mark.parametrize(("name", "surrogate"), [("clipped", "clipped"), ("polynomial", "polynomial")])
def test_plain_activations_have_the_derivative_they_name(name: str, surrogate: str) -> None:
    x = (1.5 * rand(3, 4)).requires_grad_()
    Scheme(activation=name).make_activation(4)(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), DERIVATIVES[surrogate](x.detach().numpy()), rtol=1e-6, atol=1e-7)


# ---- the contract of binary_weight


def layers_of(scheme: Scheme) -> list[BinaryConv2d | BinaryLinear]:
    torch.manual_seed(0)
    return [
        BinaryConv2d(4, 6, 3, groups=2, scheme=scheme),
        BinaryConv2d(3, 3, 1, groups=3, scheme=scheme),
        BinaryLinear(7, 5, scheme=scheme),
    ]


MIXES = [Scheme(w, a) for w in WEIGHTS for a in ACTIVATIONS]


@pytest.mark.parametrize("scheme", MIXES, ids=[f"{s.weight}/{s.activation}" for s in MIXES])
def test_binary_weight_contract(scheme: Scheme) -> None:
    for layer in layers_of(scheme):
        signs, scale, offset = layer.binary_weight()
        assert signs.shape == layer.weight.shape and signs.dtype == layer.weight.dtype
        assert layer.weight_binarizer.not_deployable or torch.equal(signs.abs(), torch.ones_like(signs))
        assert scale.shape == (layer.weight.shape[0],)
        assert offset is None or offset.shape == scale.shape
        # A period has no scale, and real weights have no signs.
        for factor in () if scheme.weight in ("biper", "biper_sine", "real") else (0.37, 4.0, 1000.0):
            with torch.no_grad():
                layer.weight *= factor
            assert torch.equal(layer.binary_weight().signs, signs)
        assert torch.equal(layer.eval().binary_weight().signs, signs)


def test_xnor_weight() -> None:
    w = torch.tensor([[0.5, -1.5, 0.0], [3.0, -0.25, 0.25]], requires_grad=True)
    signs, scale, _ = XNORWeight(2)(w)
    assert signs.tolist() == [[1, -1, 1], [1, -1, 1]]
    assert scale.tolist() == pytest.approx([2 / 3, 3.5 / 3])
    signs.sum().backward()
    assert w.grad is not None and w.grad.tolist() == [[1, 0, 1], [0, 1, 1]]


def test_recu_scale_is_learned_and_starts_in_the_unit_interval() -> None:
    layer = BinaryConv2d(2, 500, 1)
    alpha = layer.binary_weight().scale
    assert isinstance(alpha, nn.Parameter) and 0 <= alpha.min() < 0.05 and 0.95 < alpha.max() <= 1
    layer(rand(2, 2, 3, 3)).sum().backward()
    assert alpha.grad is not None and alpha.grad.abs().max() > 0


# ---- layers


class SignsScaleOffset(WeightBinarizer):
    """sign(w) with a fixed scale, of both signs and zero, and an offset."""

    def forward(self, weight: Tensor) -> BinaryWeight:
        scale = torch.linspace(-1, 1, 2 * self.out_channels + 1, dtype=weight.dtype)[::2][: self.out_channels]
        return BinaryWeight(sign(weight), scale, torch.linspace(0.5, 2, self.out_channels, dtype=weight.dtype))


def loop_conv(layer: BinaryConv2d, x: np.ndarray) -> np.ndarray:
    """Window by window: +-1 inputs, a border of padding_value, weight scale * signs + offset."""
    signs, scale, offset = layer.binary_weight()
    weight = signs.detach().numpy() * scale.detach().numpy().reshape(-1, 1, 1, 1)
    if offset is not None:
        weight = weight + offset.detach().numpy().reshape(-1, 1, 1, 1)
    (kh, kw), (sh, sw) = layer.kernel_size, layer.stride
    (ph, pw), (dh, dw) = layer.padding, layer.dilation
    n, c, h, w = x.shape
    padded = np.full((n, c, h + 2 * ph, w + 2 * pw), float(layer.padding_value))
    padded[:, :, ph : ph + h, pw : pw + w] = np.where(x >= 0, 1.0, -1.0)
    out_h = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    out_w = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    inputs_per_group, outputs_per_group = c // layer.groups, layer.out_channels // layer.groups
    y = np.zeros((n, layer.out_channels, out_h, out_w))
    for b, o, i, j in np.ndindex(*y.shape):
        first = o // outputs_per_group * inputs_per_group
        for k, u, v in np.ndindex(inputs_per_group, kh, kw):
            y[b, o, i, j] += weight[o, k, u, v] * padded[b, first + k, i * sh + u * dh, j * sw + v * dw]
    return y if layer.bias is None else y + layer.bias.detach().numpy().reshape(1, -1, 1, 1)


CONVS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2, "bias": True},
    {"kernel_size": (3, 1), "padding": (2, 0), "dilation": (2, 1)},
    {"kernel_size": (2, 3), "padding": (1, 2), "stride": (1, 2), "groups": 2, "bias": True},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 4},
    {"kernel_size": 1},
]


@pytest.mark.parametrize("offset", [False, True], ids=["scale", "offset"])
@pytest.mark.parametrize("padding_value", [0, 1, -1])
@pytest.mark.parametrize("options", CONVS, ids=str)
def test_conv_against_a_loop(options: dict, padding_value: int, offset: bool) -> None:
    layer = BinaryConv2d(4, 8, **options, padding_value=padding_value).double()
    if offset:
        layer.weight_binarizer = SignsScaleOffset(8)
    x = rand(2, 4, 6, 5, dtype=torch.float64)
    x[0, 0, 0, 0] = 0
    want = loop_conv(layer, x.numpy())
    np.testing.assert_allclose(layer.train()(x).detach().numpy(), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.eval()(x).detach().numpy(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 6), (2, 4, 6), (6,)])
@pytest.mark.parametrize("offset", [False, True], ids=["scale", "offset"])
def test_linear_against_a_loop(offset: bool, shape: tuple[int, ...]) -> None:
    layer = BinaryLinear(6, 5, bias=True).double()
    if offset:
        layer.weight_binarizer = SignsScaleOffset(5)
    signs, scale, shift = (t if t is None else t.detach() for t in layer.binary_weight())
    assert layer.bias is not None and signs is not None and scale is not None
    x = rand(*shape, dtype=torch.float64)
    y = layer(x).detach()
    assert y.shape == (*shape[:-1], 5)
    for row, out in zip(x.reshape(-1, 6), y.reshape(-1, 5), strict=True):
        for o in range(5):
            taps = [1.0 if v >= 0 else -1.0 for v in row]
            want = sum(a * float(s) for a, s in zip(taps, signs[o], strict=True)) * float(scale[o])
            want += (0.0 if shift is None else sum(taps) * float(shift[o])) + float(layer.bias.detach()[o])
            assert float(out[o]) == pytest.approx(want)
    assert torch.equal(layer.eval()(x), y)


@st.composite
def conv_cases(draw: st.DrawFn) -> tuple[dict, tuple[int, ...]]:
    small = st.integers(1, 3)
    groups = draw(small)
    kernel, dilation = (draw(small), draw(small)), (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    options = {
        "in_channels": groups * draw(small),
        "out_channels": groups * draw(small),
        "kernel_size": kernel,
        "stride": (draw(small), draw(small)),
        "padding": (draw(st.integers(0, 3)), draw(st.integers(0, 3))),
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_value": draw(st.sampled_from([0, 1, -1])),
        "scheme": draw(st.sampled_from(sorted(SCHEMES))),
    }
    least = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [draw(st.integers(low, low + 4)) for low in least]
    return options, (draw(st.integers(0, 3)), options["in_channels"], *size)


@pytest.mark.filterwarnings("ignore:var.*degrees of freedom")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(conv_cases())
def test_conv_is_torch_conv2d_of_signs(case: tuple[dict, tuple[int, ...]]) -> None:
    options, shape = case
    layer, x = BinaryConv2d(**options), rand(*shape)
    y = layer(x)
    signs, scale, offset = layer.binary_weight()
    if offset is not None:
        signs, scale = signs * scale[:, None, None, None] + offset[:, None, None, None], torch.ones_like(scale)
    a = torch.where(x >= 0, 1.0, -1.0)
    (ph, pw), value = options["padding"], float(options["padding_value"])
    a = F.pad(a, (pw, pw, ph, ph), value=value)
    want = torch.conv2d(a, signs, None, options["stride"], 0, options["dilation"], options["groups"])
    want = want * scale.reshape(1, -1, 1, 1)
    want = want if layer.bias is None else want + layer.bias.reshape(1, -1, 1, 1)
    assert y.shape == want.shape
    torch.testing.assert_close(y, want)


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_layers_train(scheme: str) -> None:
    """Every parameter gets a gradient, and a few steps lower the loss."""
    torch.manual_seed(0)
    net = nn.Sequential(
        BinaryConv2d(3, 8, 3, padding=1, scheme=scheme),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        BinaryLinear(8 * 16, 4, bias=True, scheme=scheme),
        nn.BatchNorm1d(4),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    x, y, losses = rand(16, 3, 4, 4), torch.arange(16) % 4, []
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses


def test_layers_start_as_torch_layers_do() -> None:
    torch.manual_seed(0)
    conv, linear = BinaryConv2d(16, 32, 3, bias=True), BinaryLinear(50, 60, bias=True)
    for layer, fan_in in ((conv, 16 * 9), (linear, 50)):
        assert layer.bias is not None
        for parameter in (layer.weight, layer.bias):
            assert parameter.abs().max().item() <= 1 / math.sqrt(fan_in)
            assert parameter.std().item() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.25)


def test_layers_say_what_they_are() -> None:
    assert "padding_value=-1" in repr(BinaryConv2d(3, 4, 3, padding_value=-1))
    assert "scheme=xnor/clipped" in repr(BinaryLinear(3, 4, scheme="xnor"))


# ---- progress


def test_set_progress_is_saved_and_moved_with_the_network() -> None:
    net = nn.Sequential(BinaryConv2d(3, 4, 3), nn.Flatten(), BinaryLinear(4, 2, scheme="xnor"))
    set_progress(net, 0.25)
    state = net.state_dict()
    progress = [name for name in state if name.endswith("progress")]
    assert len(progress) == 4 and all(state[name].item() == 0.25 for name in progress)
    fresh = nn.Sequential(BinaryConv2d(3, 4, 3), nn.Flatten(), BinaryLinear(4, 2, scheme="xnor"))
    fresh.load_state_dict(state)
    x = rand(2, 3, 3, 3)
    assert torch.equal(fresh(x), net(x))
    assert fresh.double().state_dict()[progress[0]].dtype == torch.float64


def test_set_progress_of_an_ordinary_network_does_nothing() -> None:
    set_progress(nn.Linear(2, 2), 0.5)


@pytest.mark.parametrize("p", [-0.01, 1.01, math.nan, math.inf])
def test_set_progress_refuses(p: float) -> None:
    with pytest.raises(ValueError, match=r"progress must be in \[0, 1\], got"):
        set_progress(BinaryLinear(2, 2), p)


# ---- compilation, devices, precision


def forward_and_gradients(f: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor) -> list[Tensor]:
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = f(x)
    (y * rand(*y.shape, seed=7)).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


@pytest.mark.compiles
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_layers_compile_to_one_graph(scheme: str, training: bool) -> None:
    torch._dynamo.reset()
    layer = BinaryConv2d(3, 4, 3, padding=1, padding_value=-1, bias=True, scheme=scheme).train(training)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for p in (0.0, 0.5):
        set_progress(layer, p)
        got = forward_and_gradients(compiled, layer, rand(2, 3, 5, 5))
        want = forward_and_gradients(layer, layer, rand(2, 3, 5, 5))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.compiles
def test_layer_compiles_with_the_default_backend() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = BinaryConv2d(3, 4, 3, padding=1)
    got = forward_and_gradients(torch.compile(layer, fullgraph=True), layer, rand(2, 3, 5, 5))
    want = forward_and_gradients(layer, layer, rand(2, 3, 5, 5))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_nothing_syncs_with_the_host(scheme: str) -> None:
    """A meta tensor has no values: .item(), a branch on a value or a copy to the host would raise."""
    net = nn.Sequential(
        BinaryConv2d(3, 4, 3, scheme=scheme), nn.Flatten(), BinaryLinear(36, 2, bias=True, scheme=scheme)
    ).to("meta")
    set_progress(net, 0.5)
    y = net.train()(torch.empty(2, 3, 5, 5, device="meta"))
    y.sum().backward()
    assert y.shape == (2, 2) and y.device.type == "meta"
    assert all(p.grad is not None for p in net.parameters())
    assert net.eval()(torch.empty(2, 3, 5, 5, device="meta")).shape == (2, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_layers_in_other_precisions(dtype: torch.dtype) -> None:
    net = nn.Sequential(BinaryConv2d(3, 4, 3), nn.Flatten(), BinaryLinear(36, 2)).to(dtype)
    y = net(rand(2, 3, 5, 5, dtype=dtype))
    y.sum().backward()
    assert y.dtype == dtype and y.isfinite().all()


def test_layers_under_autocast_keep_exact_signs() -> None:
    layer, x = BinaryConv2d(3, 4, 3), rand(2, 3, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        a = layer.activation_binarizer(x.bfloat16())
    y.sum().backward()
    # 27 taps of +-1: their sum is exact in bfloat16, the scale is float32's.
    torch.testing.assert_close(y.float(), layer(x), rtol=1e-2, atol=1e-2)
    assert torch.equal(a.float().abs(), torch.ones_like(x))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("offset", [False, True], ids=["scale", "offset"])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_layers_under_autocast_stay_in_half_precision(kind: str, offset: bool, bias: bool) -> None:
    layer = BinaryConv2d(3, 4, 3, bias=bias) if kind == "conv" else BinaryLinear(5, 4, bias=bias)
    if offset:
        layer.weight_binarizer = SignsScaleOffset(4)
    x = rand(2, 3, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    # Rounded once, at the end.
    torch.testing.assert_close(y, layer(x).bfloat16(), rtol=0, atol=0)


# ---- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sign(torch.ones(1), surrogate="cliped"), "surrogate must be one of identity, clipped"),
        (lambda: BinaryConv2d(3, 4, 3, padding_value=2), "padding_value must be -1, 0 or 1, got 2"),
        (lambda: BinaryConv2d(3, 4, 3, groups=2), "groups must divide in_channels and out_channels, got 2"),
        (lambda: BinaryConv2d(4, 3, 3, groups=2), "groups must divide in_channels and out_channels, got 2"),
        (lambda: BinaryConv2d(0, 4, 3), "in_channels must be >= 1, got 0"),
        (lambda: BinaryConv2d(3, 4, (3, 0)), r"kernel_size must be >= 1, got \(3, 0\)"),
        (lambda: BinaryConv2d(3, 4, 3, stride=0), "stride must be >= 1, got 0"),
        (lambda: BinaryConv2d(3, 4, 3, padding=-1), "padding must be whole numbers >= 0, got -1"),
        (lambda: BinaryConv2d(3, 4, 3, padding="same"), "padding must be whole numbers >= 0, got 'same'"),
        (lambda: BinaryLinear(3, 0), "out_features must be >= 1, got 0"),
        (lambda: ReCUWeight(0), "out_channels must be >= 1, got 0"),
        (lambda: ReCUWeight(3, tau_min=1.2), r"tau_min must be in \(0.5, 1\), got 1.2"),
        (lambda: ReCUWeight(3, tau_min=0.5), r"tau_min must be in \(0.5, 1\), got 0.5"),
        (lambda: ReCUWeight(3, tau_min=0.9, tau_max=0.8), r"tau_max must be in \[tau_min, 1\).*got 0.8"),
        (lambda: ReCUWeight(3, tau_max=1.0), r"tau_max must be in \[tau_min, 1\).*got 1.0"),
        (lambda: Scheme(tau_min=2.0), r"tau_min must be in \(0.5, 1\), got 2.0"),
        (lambda: Scheme(tau_min=0.9, tau_max=0.8), r"tau_max must be in \[tau_min, 1\).*got 0.8"),
        (lambda: BinaryConv2d(3, 4, 3, scheme="reku"), "unknown scheme 'reku'.*did you mean 'recu'"),
        (lambda: as_scheme("zzz"), "unknown scheme 'zzz', expected one of recu, xnor, irnet, "),
        (lambda: Scheme(weight="xnorr"), "unknown weight binariser 'xnorr'.*did you mean 'xnor'"),
        (
            lambda: Scheme(activation="polynom"),
            "unknown activation binariser 'polynom'.*mean 'polynomial'",
        ),
    ],
)
def test_bad_arguments(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_schemes() -> None:
    assert as_scheme("recu") is SCHEMES["recu"]
    mixed = Scheme("xnor", "polynomial")
    assert as_scheme(mixed) is mixed
    layer = BinaryConv2d(3, 4, 3, scheme=Scheme(tau_min=0.6, tau_max=0.7))
    assert isinstance(layer.weight_binarizer, ReCUWeight) and layer.weight_binarizer.tau_max == 0.7
    assert Scheme("xnor", tau_min=2.0).tau_min == 2.0, "other weights have no tau"
