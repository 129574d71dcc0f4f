"""Integer quantisers and layers: values against a loop, gradients, state, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.fpga import rand
from torch import Tensor

from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.errors import UserError
from bnn_itrd.models import resnet18, vgg_small
from bnn_itrd.quant import IntegerConv2d, IntegerLinear, IntegerQuantizer, WeightQuantizer, integer_quantize


def test_integers_against_a_loop() -> None:
    x = torch.cat([rand(500) * 3, torch.arange(-40, 40) / 8])  # the second half: ties and both ends
    for bits, narrow in ((2, False), (4, False), (4, True), (8, False)):
        high = 2 ** (bits - 1) - 1
        low = -high if narrow else -high - 1
        got = integer_quantize(x, torch.tensor(0.25), bits=bits, narrow=narrow)
        want = [0.25 * max(low, min(high, round(v / 0.25))) for v in x.tolist()]  # round: ties to even
        assert got.tolist() == want
    assert integer_quantize(x.bfloat16(), torch.tensor(0.5), bits=4).dtype == torch.bfloat16
    assert integer_quantize(torch.tensor([math.nan]), torch.tensor(0.5), bits=4).isnan().all()


def test_the_gradients_are_those_of_the_stated_surrogate() -> None:
    """By finite differences in float64, away from the kinks: the clamp for x, the frozen rounding for the scale."""
    scale, step = 0.3, 1e-6
    x = rand(200, dtype=torch.float64) * 2
    x = x[((x / scale - 7).abs() > 1e-3) & ((x / scale + 8).abs() > 1e-3)]
    weights = rand(len(x), seed=1, dtype=torch.float64)
    a, s = x.clone().requires_grad_(), torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    (integer_quantize(a, s, bits=4) * weights).sum().backward()

    def clamped(v: Tensor) -> Tensor:
        return v.clamp(-8 * scale, 7 * scale)

    rounding = (x / scale).clamp(-8, 7).round() - (x / scale).clamp(-8, 7)

    def by_scale(size: float) -> float:
        return float((((x / size).clamp(-8, 7) + rounding) * size * weights).sum())

    assert a.grad is not None and s.grad is not None
    torch.testing.assert_close(
        a.grad, weights * (clamped(x + step) - clamped(x - step)) / (2 * step), rtol=1e-6, atol=1e-6
    )
    numeric = (by_scale(scale + step) - by_scale(scale - step)) / (2 * step)
    assert float(s.grad) == pytest.approx(numeric, rel=1e-6)
    assert (a.grad == 0).any() and (a.grad != 0).any()


def test_the_scales_gradient_is_damped_as_lsq_has_it() -> None:
    quantizer, x = IntegerQuantizer(4), rand(3, 5, 2)
    quantizer(x).sum().backward()
    scale = quantizer.scale().detach().requires_grad_()
    integer_quantize(x, scale, bits=4).sum().backward()
    assert quantizer.log_gain.grad is not None and scale.grad is not None
    # d scale / d log_gain is the scale itself.
    expected = float(scale.grad * scale.detach()) / math.sqrt(10 * 7)
    assert float(quantizer.log_gain.grad) == pytest.approx(expected, rel=1e-5)


def test_a_quantiser_starts_at_hardtanhs_range_and_stays_positive() -> None:
    quantizer = IntegerQuantizer(4)
    y = quantizer(torch.tensor([-5.0, 5.0, 0.0, 0.06]))
    assert y.tolist() == [-1.0, 0.875, 0.0, 0.0]
    with torch.no_grad():
        quantizer.log_gain.fill_(-20.0)
    assert float(quantizer.scale().detach()) > 0


def test_train_equals_eval_and_the_state_is_saved() -> None:
    quantizer, x = IntegerQuantizer(4, bound=2.0), rand(4, 6)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    quantizer(x).square().sum().backward()
    optimizer.step()
    assert float(quantizer.log_gain.detach()) != 0
    assert torch.equal(quantizer.train()(x), quantizer.eval()(x))
    other = IntegerQuantizer(4, bound=2.0)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x), quantizer(x)) and list(quantizer.state_dict()) == ["log_gain"]


def test_weights_reach_their_highest_integer() -> None:
    weight = rand(3, 4, 3, 3).requires_grad_()
    quantizer = WeightQuantizer(8)
    y = quantizer(weight)
    levels = y / quantizer.scale(weight)
    assert float(levels.abs().max().detach()) == pytest.approx(127)
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    y.backward(torch.ones_like(y))
    assert torch.equal(weight.grad, torch.ones_like(weight))  # type: ignore[arg-type]
    assert not quantizer(torch.zeros(2, 2)).any() and not list(quantizer.state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: integer_quantize(torch.zeros(1), torch.ones(()), bits=1), r"bits must be in \[2, 16\], got 1"),
        (lambda: IntegerQuantizer(17), r"bits must be in \[2, 16\], got 17"),
        (lambda: IntegerQuantizer(4, bound=0), "bound must be > 0, got 0"),
        (lambda: resnet18(residual_bits=4), "residual_bits=4 needs a binary network"),
        (lambda: vgg_small(first_last_bits=8), "first_last_bits=8 needs a binary network"),
        (lambda: vgg_small(norm_before_pool=True), "norm_before_pool=True needs a binary network"),
        (lambda: resnet18(binary="recu", residual_bits=9), r"residual_bits must be in \[2, 8\], got 9"),
        (lambda: resnet18(shortcut="binary"), "shortcut='binary' needs a binary network"),
        (lambda: NetworkConfig(first_last_bits=1), r"network.first_last_bits must be in \[2, 8\], got 1"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises((ValueError, UserError), match=message):
        make()


def test_an_integer_convolution_is_one_of_whole_numbers() -> None:
    conv, x = IntegerConv2d(3, 4, 3, 2, 1, bits=8, bound=4.0), rand(2, 3, 6, 6)
    a = (x.double() / (4 / 128)).round().clamp(-128, 127)
    size = conv.weight.detach().abs().max().double() / 127
    w = (conv.weight.detach().double() / size).round()
    want = F.conv2d(a, w, stride=2, padding=1) * (4 / 128) * size
    torch.testing.assert_close(conv(x).detach().double(), want, rtol=1e-5, atol=1e-5)


def test_the_folded_norm_is_the_norm() -> None:
    """In evaluation a linear layer of whole numbers; in training the same, were the batch's statistics the running."""
    torch.manual_seed(0)
    layer, x = IntegerLinear(6, 3, normalise=True), rand(16, 6) * 0.4 + 0.1
    assert layer.norm is not None
    quantised = layer.input_quantizer(x).detach()
    layer.norm.running_mean, layer.norm.running_var = quantised.mean(0), quantised.var(0, correction=0)
    evaluated = layer.eval()(x)
    factor = (layer.norm.running_var + layer.norm.eps).rsqrt()
    size = (layer.weight * factor).abs().max() / 127
    weight = (layer.weight * factor / size).round() * size
    want = (quantised - layer.norm.running_mean) @ weight.T + layer.bias
    torch.testing.assert_close(evaluated, want)
    layer.norm.momentum = 0.0
    torch.testing.assert_close(layer.train()(x), evaluated, rtol=1e-4, atol=1e-5)
