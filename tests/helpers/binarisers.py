"""NumPy versions of what binarisers compute at a fixed progress of the training, and a network for each scheme."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn_itrd.quant import SCHEMES, BinaryConv2d, BinaryLinear, Scheme, set_progress, start_epoch

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# The progress of the training (0 to 1) at which values and gradients are compared, and what annealed binarisers make of
# it: T and K of IR-Net, the order of ReSTE, tau of ReCU.
P = 0.3
T = 1e-2 * 1000**P
K = max(1 / T, 1)
ORDER = 1 + 2 * (1 - math.cos(math.pi / 2 * P))
TAU = 0.85 + 0.14 * (math.exp(P) - 1) / (math.e - 1)
Array = np.ndarray


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def hard(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def standard(x: Array, *, centre: bool = True, eps: float = 1e-5) -> Array:
    """Returns each sample divided by its standard deviation, after subtracting its mean if `centre`; plain loops."""
    out = np.empty_like(x)
    for i in range(len(x)):
        entries = [float(v) for v in x[i].flat]
        mean = sum(entries) / len(entries)
        variance = sum((v - mean) ** 2 for v in entries) / (len(entries) - 1)
        out[i] = (x[i] - (mean if centre else 0)) / math.sqrt(variance + eps)
    return out


# The functions whose derivatives are the surrogate gradients, so that numerical differentiation gives these.
def ede(x: Array) -> Array:
    return K * np.tanh(T * x)


def triangle(x: Array, k: float = K, t: float = T) -> Array:
    y = np.clip(x, -math.sqrt(2) / t, math.sqrt(2) / t)
    return k * (math.sqrt(2) * t * y - t * t * y * np.abs(y) / 2)


def polynomial(x: Array) -> Array:
    y = np.clip(x, -1, 1)
    return 2 * y - y * np.abs(y)


def clipped(x: Array) -> Array:
    return np.clip(x, -1, 1)


def reste(x: Array) -> Array:
    y = np.minimum(np.abs(x), 1.5)
    return np.sign(x) * np.where(y <= 0.1, 0.1 ** (1 / ORDER) / 0.1 * y, y ** (1 / ORDER))


def per_filter(f: Callable[[Array], float], w: Array) -> Array:
    """Returns f of each filter of w, flattened."""
    return np.array([f(w[i].ravel()) for i in range(len(w))])


def mean_size(w: Array) -> Array:
    return per_filter(lambda v: float(np.abs(v).sum() / v.size), w)


REAL = {"real", "biper_sine"}


def numerical(f: Callable[[Array], float], x: Array, step: float = 1e-6) -> Array:
    """Returns the gradient of f at x by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (f(up) - f(down)) / (2 * step)
    return gradient


def make_weight(name: str, shape: tuple[int, ...]) -> Any:
    binarizer = Scheme(name).make_weight(shape[0], math.prod(shape[1:])).double()
    set_progress(binarizer, P)
    return binarizer


def channels_last(v: Array) -> Array:
    return v.reshape(-1, 1, 1)


def network(scheme: str | Scheme, *, padding_value: int = 0) -> nn.Module:
    """Returns a network with every kind of binary layer between two full-precision layers.

    Its scales, biases and statistics do not have their initial values, so that a test notices if one is ignored.
    """
    torch.manual_seed(3)
    made = Scheme() if isinstance(scheme, Scheme) else SCHEMES[scheme]
    made = scheme if isinstance(scheme, Scheme) else made
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        made.make_nonlinearity(8),
        BinaryConv2d(8, 12, 3, padding=1, padding_value=padding_value, scheme=made),
        nn.BatchNorm2d(12),
        made.make_nonlinearity(12),
        BinaryConv2d(12, 12, 3, 2, 1, groups=2, padding_value=padding_value, bias=True, scheme=made),
        nn.BatchNorm2d(12),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        BinaryLinear(48, 20, scheme=made),
        nn.BatchNorm1d(20),
        nn.Linear(20, 5),
    )
    start_epoch(net)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() <= 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
    return net
