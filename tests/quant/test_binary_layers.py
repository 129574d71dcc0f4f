"""`BinaryConv2d` and `BinaryLinear` against loops and torch: what a binariser gives them, gradients, state."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.layers import SignsScaleOffset
from helpers.numbers import rand
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnn_itrd.quant import (
    ACTIVATIONS,
    SCHEMES,
    WEIGHTS,
    BinaryConv2d,
    BinaryLinear,
    Scheme,
    XNORWeight,
    sign,
)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_are_the_sign_of_presign_in_both_modes(name: str) -> None:
    binarizer, x = Scheme(activation=name).make_activation(3), rand(4, 3, 5, 5)
    want = sign(binarizer.presign(x))
    assert torch.equal(binarizer.train()(x), want)
    assert torch.equal(binarizer.eval()(x), want)


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
