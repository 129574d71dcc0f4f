"""Layers as plain functions of float64 tensors, with which tests write down networks; and small networks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.models import MODELS
from bnn_itrd.quant import BinaryConv2d


def tiny(name: str, **options: object) -> nn.Module:
    """Returns a network of MODELS for 16 x 16 images; the wide ones are made narrower."""
    width = {"width": 0.25} if name in ("resnet50", "resnet8x4", "vgg8") else {}
    return MODELS[name](5, input_shape=(3, 16, 16), **width, **options)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives BatchNorms values that are not 1 and 0; returns the network in float64 and eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    return model.double().eval()


def norm(x: Tensor, bn: nn.Module) -> Tensor:
    assert isinstance(bn, nn.BatchNorm2d) and bn.running_mean is not None and bn.running_var is not None
    mean, var, gamma, beta = (v.reshape(1, -1, 1, 1) for v in (bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return (x - mean) / (var + bn.eps).sqrt() * gamma + beta


def signs(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def convolved(x: Tensor, conv: nn.Module) -> Tensor:
    """Computes a convolution of a network, binary (with ReCU's weights) or not.

    ReCU's binary weights are the signs of w - mean(filter).
    """
    if isinstance(conv, BinaryConv2d):
        w = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
        alpha = conv.weight_binarizer.alpha.reshape(1, -1, 1, 1)
        return F.conv2d(signs(x), signs(w), None, conv.stride, conv.padding, 1, conv.groups) * alpha
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, 1, conv.groups)


def activated(x: Tensor, binary: str | None) -> Tensor:
    return x.clamp(min=0) if binary is None else x.clamp(-1, 1)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Computes a channel shuffle: channel i of group g becomes channel i * groups + g."""
    each = x.shape[1] // groups
    result = torch.empty_like(x)
    for g in range(groups):
        for i in range(each):
            result[:, i * groups + g] = x[:, g * each + i]
    return result


def example(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))
