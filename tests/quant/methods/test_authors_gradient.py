"""The gradient of Bi-Real Net's and ReActNet's weights as their authors' code has it: the scale is left out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.trees import differences, to_dict
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, Scheme

OURS, AUTHORS = Scheme("bireal", "polynomial"), Scheme("bireal", "polynomial", scaled_gradient=False)


def _linear(scheme: Scheme, weight: torch.Tensor) -> BinaryLinear:
    layer = BinaryLinear(3, 2, scheme=scheme).to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def test_the_gradient_is_that_of_the_published_expression() -> None:
    """dL/dw = dL/dW_b where |w| <= 1, with W_b = scale * sign(w): by hand, in NumPy."""
    weight = torch.tensor([[0.2, -0.7, 1.5], [-0.1, 0.05, -1.0]], dtype=torch.float64)
    x = torch.tensor([[0.3, -2.0, 0.1], [-0.4, 0.2, 0.9]], dtype=torch.float64)
    upstream = np.array([[1.0, -0.5], [0.25, 2.0]])
    w, signs_in = weight.numpy(), np.where(x.numpy() >= 0, 1.0, -1.0)
    scale = np.abs(w).mean(axis=1)
    of_product = np.zeros((2, 3))
    for sample in range(2):
        for o in range(2):
            for i in range(3):
                of_product[o, i] += upstream[sample, o] * signs_in[sample, i]
    of_product *= np.abs(w) <= 1
    for scheme, want in ((AUTHORS, of_product), (OURS, of_product * scale[:, None])):
        layer = _linear(scheme, weight)
        y = layer(x)
        np.testing.assert_allclose(y.detach().numpy(), signs_in @ (scale[:, None] * np.where(w >= 0, 1, -1)).T)
        y.backward(torch.from_numpy(upstream))
        assert layer.weight.grad is not None
        np.testing.assert_allclose(layer.weight.grad.numpy(), want, rtol=1e-12)


def test_a_convolution_steps_as_the_published_code() -> None:
    """That of Bi-Real Net: scale * sign(w) as a constant, with clamp(w, -1, 1) for the gradient."""
    torch.manual_seed(0)
    layer = BinaryConv2d(4, 6, 3, padding=1, scheme=AUTHORS)
    published = layer.weight.detach().clone().requires_grad_()
    x = torch.randn(2, 4, 5, 5)
    scale = published.abs().mean(dim=(1, 2, 3), keepdim=True).detach()
    clipped = published.clamp(-1, 1)
    binary = (scale * published.sign()).detach() - clipped.detach() + clipped
    want = F.conv2d(torch.where(x >= 0, 1.0, -1.0), binary, padding=1)
    got = layer(x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    got.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, published.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_are_signs_and_a_filter_of_zeros_is_finite(dtype: torch.dtype) -> None:
    weight = torch.tensor([[0.2, -0.7, 1e-30], [0.0, 0.0, -0.0]], dtype=dtype)
    layer = _linear(AUTHORS, weight)
    signs, scale, _ = layer.binary_weight()
    assert signs.dtype == dtype and signs.tolist() == [[1, -1, 1], [1, 1, 1]]
    assert scale[1] == 0
    layer(torch.ones(4, 3, dtype=dtype)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()
    assert layer.weight.grad[0].any() and not layer.weight.grad[1].any()


def test_it_is_an_option_of_these_weights_alone() -> None:
    with pytest.raises(ValueError, match="scaled_gradient=False needs weight bireal, got 'xnor'"):
        Scheme("xnor", "clipped", scaled_gradient=False)
    config = SchemeConfig(weight="bireal", scaled_gradient=False, first_stage_epochs=2)
    assert config.of_first_stage().scaled_gradient  # real weights have no sign to scale


def test_what_a_checkpoint_keeps_of_a_scheme_is_as_before() -> None:
    """The text tells networks of a user's own binarisers apart, and the fields a run's configuration."""
    assert "scaled_gradient" not in repr(OURS)
    assert repr(AUTHORS) == repr(OURS)[:-1] + ", scaled_gradient=False)"
    assert repr(OURS.make_weight(4)) == "BiRealWeight()"
    assert repr(AUTHORS.make_weight(4)) == "BiRealWeight(scaled_gradient=False)"
    given = {"scheme": to_dict(SchemeConfig())}
    saved = {"scheme": {k: v for k, v in given["scheme"].items() if k != "scaled_gradient"}}
    assert differences(saved, given) == []
    changed = dataclasses.replace(SchemeConfig(weight="bireal"), scaled_gradient=False)
    assert "scheme.scaled_gradient: True there, False given" in differences(saved, {"scheme": to_dict(changed)})
