"""Fused GPU kernels for ReCU; `recu_activation` and `recu_weight` of `quant.methods.recu` define what they compute.

Of the activations, the forward kernel writes the signs of a sample and computes its mean and variance in one pass. The
backward kernel reads the sample and its gradient once for a sum, and once more for the result. Each GPU program handles
one sample: a batch of fewer samples than the GPU has multiprocessors leaves some of them idle.

Of the weights, each program handles the filter of one output channel, which stays in the cache between its passes: the
forward kernel reads the weight from memory once and writes the signs, and the backward kernel reads the weight and its
gradient once and writes the result.

All are custom operators of torch, so torch.compile and CUDA graphs use them unchanged. Importing this module needs
Triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bnn_itrd.quant.constants import EPS, RECU_SPREAD

__all__ = ["fused_recu_activation", "fused_recu_weight"]

# How many values a program handles at a time, and by how many warps (of 32 threads each). Measured for the activations
# of ResNet-18 on an H200, with 2,048 to 16,384 values and 8 to 32 warps (benchmarks/recu_kernels_h200.json): of these,
# the forward kernel's take the least time for all layers together. The backward kernel's do so for the two smaller
# maps; 32 warps are faster for the two larger ones, by 5 and 12 %. That file has no times of the weights' kernels.
_FORWARD: dict[str, int] = {"BLOCK": 4096, "num_warps": 16}
_BACKWARD: dict[str, int] = {"BLOCK": 8192, "num_warps": 16}
_WEIGHT: dict[str, int] = {"BLOCK": 2048, "num_warps": 8}
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


@triton.jit
def _forward(x_at, signs_at, means_at, roots_at, length, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    sample = tl.program_id(0)
    begin = sample.to(tl.int64) * length
    lane = tl.arange(0, BLOCK)
    # Welford's algorithm: the mean and the sum of squared deviations, separately for each lane.
    count = tl.zeros((BLOCK,), tl.float32)
    mean = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, length, BLOCK):
        inside = start + lane < length
        value = tl.load(x_at + begin + start + lane, mask=inside, other=0.0)
        one = tl.full((BLOCK,), 1.0, tl.float32)
        tl.store(signs_at + begin + start + lane, tl.where(value >= 0, one, -one).to(value.dtype), mask=inside)
        x = value.to(tl.float32)
        count += inside.to(tl.float32)
        apart = tl.where(inside, x - mean, 0.0)
        mean += apart / tl.maximum(count, 1.0)
        squares += apart * (x - mean)
    of_all = tl.sum(mean * count, 0) / length
    apart = mean - of_all
    variance = tl.sum(squares + count * apart * apart, 0) / tl.maximum(length - 1, 1)
    tl.store(means_at + sample, of_all)
    tl.store(roots_at + sample, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _backward(x_at, grad_at, means_at, roots_at, out_at, length, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    sample = tl.program_id(0)
    begin = sample.to(tl.int64) * length
    lane = tl.arange(0, BLOCK)
    mean = tl.load(means_at + sample)
    root = tl.load(roots_at + sample)
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, length, BLOCK):
        inside = start + lane < length
        x = tl.load(x_at + begin + start + lane, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_at + begin + start + lane, mask=inside, other=0.0).to(tl.float32)
        sums += grad * tl.maximum(2.0 - 2.0 * tl.abs(x * root), 0.0) * x
    of_root = tl.sum(sums, 0)
    of_variance = -0.5 * of_root * root * root * root * 2.0 / tl.maximum(length - 1, 1)
    for start in range(0, length, BLOCK):
        inside = start + lane < length
        x = tl.load(x_at + begin + start + lane, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_at + begin + start + lane, mask=inside, other=0.0).to(tl.float32)
        slope = grad * tl.maximum(2.0 - 2.0 * tl.abs(x * root), 0.0)
        result = slope * root + of_variance * (x - mean)
        tl.store(out_at + begin + start + lane, result.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def _weight_forward(  # type: ignore[no-untyped-def]
    w_at, signs_at, means_at, roots_at, sizes_at, length, eps, BLOCK: tl.constexpr
):
    channel = tl.program_id(0)
    begin = channel.to(tl.int64) * length
    lane = tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, length, BLOCK):
        sums += tl.load(w_at + begin + start + lane, mask=start + lane < length, other=0.0)
    mean = tl.sum(sums, 0) / length
    squares = tl.zeros((BLOCK,), tl.float32)
    sizes = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, length, BLOCK):
        inside = start + lane < length
        centred = tl.load(w_at + begin + start + lane, mask=inside, other=0.0) - mean
        one = tl.full((BLOCK,), 1.0, tl.float32)
        tl.store(signs_at + begin + start + lane, tl.where(centred >= 0, one, -one), mask=inside)
        centred = tl.where(inside, centred, 0.0)
        squares += centred * centred
        sizes += tl.abs(centred)
    root = 1.0 / tl.sqrt(tl.sum(squares, 0) / tl.maximum(length - 1, 1) + eps)
    tl.store(means_at + channel, mean)
    tl.store(roots_at + channel, root)
    tl.store(sizes_at + channel, tl.sum(sizes, 0) * root)


@triton.jit
def _weight_backward(  # type: ignore[no-untyped-def]
    w_at, grad_at, means_at, roots_at, bound_at, out_at, length, SPREAD: tl.constexpr, BLOCK: tl.constexpr
):
    channel = tl.program_id(0)
    begin = channel.to(tl.int64) * length
    lane = tl.arange(0, BLOCK)
    mean = tl.load(means_at + channel)
    root = tl.load(roots_at + channel)
    bound = tl.load(bound_at)  # of the weight with a variance of 1, without ReCU's factor
    sums = tl.zeros((BLOCK,), tl.float32)
    products = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, length, BLOCK):
        inside = start + lane < length
        centred = tl.load(w_at + begin + start + lane, mask=inside, other=0.0) - mean
        grad = tl.load(grad_at + begin + start + lane, mask=inside, other=0.0)
        grad = tl.where(tl.abs(centred * root) <= bound, grad, 0.0)
        sums += grad
        products += grad * centred
    of_mean = tl.sum(sums, 0) / length
    of_variance = tl.sum(products, 0) * root * root / tl.maximum(length - 1, 1)
    for start in range(0, length, BLOCK):
        inside = start + lane < length
        centred = tl.load(w_at + begin + start + lane, mask=inside, other=0.0) - mean
        grad = tl.load(grad_at + begin + start + lane, mask=inside, other=0.0)
        grad = tl.where(tl.abs(centred * root) <= bound, grad, 0.0)
        result = (grad - of_mean - of_variance * centred) * root * SPREAD
        tl.store(out_at + begin + start + lane, result, mask=inside)


# It is False where TRITON_INTERPRET=1 has made the kernels Python functions, which run on the CPU.
_ON_GPU = isinstance(_forward, triton.JITFunction)


def _as_laid_out(x: Tensor, like: Tensor) -> Tensor:
    """Returns x with the strides of another tensor of the same shape."""
    return x if x.stride() == like.stride() else torch.empty_like(like, dtype=x.dtype).copy_(x)


@torch.library.custom_op("bnn_itrd::recu_signs", mutates_args=())
def _signs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    signs = torch.empty_like(x)
    means, roots = (torch.empty(len(x), dtype=torch.float32, device=x.device) for _ in range(2))
    length = x[0].numel()
    _forward[(len(x),)](x, signs, means, roots, length, EPS, **_FORWARD)
    return signs, means, roots


@_signs.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    per_sample = x.new_empty(len(x), dtype=torch.float32)
    return torch.empty_like(x), per_sample, torch.empty_like(per_sample)


@torch.library.custom_op("bnn_itrd::recu_signs_backward", mutates_args=())
def _signs_backward(grad: Tensor, x: Tensor, means: Tensor, roots: Tensor) -> Tensor:
    out = torch.empty_like(x)
    _backward[(len(x),)](x, _as_laid_out(grad, x), means, roots, out, x[0].numel(), **_BACKWARD)
    return out


@_signs_backward.register_fake
def _(grad: Tensor, x: Tensor, means: Tensor, roots: Tensor) -> Tensor:
    return torch.empty_like(x)


def _setup(ctx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:  # type: ignore[no-untyped-def]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(inputs[0], *output[1:])


def _differentiate(ctx, grad: Tensor, *_: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
    result: Tensor = _signs_backward(grad, *ctx.saved_tensors)
    return result


_signs.register_autograd(_differentiate, setup_context=_setup)


def _is_dense(x: Tensor) -> bool:
    """Returns whether x is contiguous or channels-last, so that each sample is one block of memory."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _check_device(x: Tensor, what: str, movable: str) -> None:
    """Raises ValueError if the kernels need a GPU and x is not on one.

    what: x in words; movable: what the user has to move to the GPU, in words.
    """
    if _ON_GPU and not x.is_cuda:
        raise ValueError(
            f"the fused kernels of ReCU run on a GPU, but {what} is on {x.device}: move {movable} to a GPU, "
            "or switch the kernels off with bnn_itrd.quant.set_fused(network, False)"
        )


def fused_recu_activation(x: Tensor) -> Tensor:
    """Computes `recu_activation` with two GPU kernels: sign(x / sqrt(var + 1e-5)), (n, ...) -> (n, ...) in {-1, +1}.

    The signs are the same; the gradients agree up to the rounding of a sum in float32. x has two or more axes and is
    float32, bfloat16 or float16, on a GPU (or, with TRITON_INTERPRET=1, on the CPU). There is no second derivative.
    Raises ValueError for another x.

    >>> x = torch.tensor([[-2.0, 0.5]], device="cuda")  # doctest: +SKIP
    >>> fused_recu_activation(x)  # doctest: +SKIP
    tensor([[-1.,  1.]], device='cuda:0')
    """
    _check_device(x, "an input", "network and images")
    if x.dim() < 2 or x.dtype not in _TYPES:
        raise ValueError(
            f"x must have two axes or more, in float32, bfloat16 or float16, got {tuple(x.shape)} in {x.dtype}"
        )
    signs: Tensor = _signs(x if _is_dense(x) else x.contiguous())[0]
    return signs


@torch.library.custom_op("bnn_itrd::recu_weight_signs", mutates_args=())
def _weight_signs(weight: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    signs = torch.empty_like(weight)
    means, roots, sizes = (torch.empty(len(weight), dtype=torch.float32, device=weight.device) for _ in range(3))
    length = weight[0].numel()
    _weight_forward[(len(weight),)](weight, signs, means, roots, sizes, length, EPS, **_WEIGHT)
    return signs, means, roots, -(sizes.sum() / weight.numel()) * torch.log(2 - 2 * tau)


@_weight_signs.register_fake
def _(weight: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    per_channel = weight.new_empty(len(weight))
    return torch.empty_like(weight), per_channel, torch.empty_like(per_channel), weight.new_empty(())


@torch.library.custom_op("bnn_itrd::recu_weight_backward", mutates_args=())
def _weight_signs_backward(grad: Tensor, weight: Tensor, means: Tensor, roots: Tensor, bound: Tensor) -> Tensor:
    out = torch.empty_like(weight)
    grad, length = _as_laid_out(grad, weight), weight[0].numel()
    _weight_backward[(len(weight),)](weight, grad, means, roots, bound, out, length, SPREAD=RECU_SPREAD, **_WEIGHT)
    return out


@_weight_signs_backward.register_fake
def _(grad: Tensor, weight: Tensor, means: Tensor, roots: Tensor, bound: Tensor) -> Tensor:
    return torch.empty_like(weight)


def _setup_weight(ctx, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:  # type: ignore[no-untyped-def]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(inputs[0], *output[1:])


def _differentiate_weight(ctx, grad: Tensor, *_: Tensor | None) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
    return _weight_signs_backward(grad, *ctx.saved_tensors), None


_weight_signs.register_autograd(_differentiate_weight, setup_context=_setup_weight)


def fused_recu_weight(weight: Tensor, *, tau: Tensor | float) -> Tensor:
    """Computes `recu_weight` with two GPU kernels: ``sign(w - mean_o)``, (o, ...) -> (o, ...) in {-1, +1}.

    weight: the floats behind a layer's binary weights, with two or more axes, in float32, on a GPU (or, with
    TRITON_INTERPRET=1, on the CPU). mean_o is the mean of the filter of output channel o. tau, in (0.5, 1), is the
    quantile from which weights far from the mean are clamped, so that they get no gradient through the sign.

    The results agree with those of `recu_weight` up to rounding in float32: a weight that differs from the mean by
    rounding alone may get the other sign. There is no second derivative. Raises ValueError for another weight.

    >>> fused_recu_weight(torch.tensor([[1.0, 3.0]], device="cuda"), tau=0.9)  # doctest: +SKIP
    tensor([[-1.,  1.]], device='cuda:0')
    """
    _check_device(weight, "a weight", "the network")
    if weight.dim() < 2 or weight.dtype != torch.float32:
        raise ValueError(f"weight must have two axes or more, in float32, got {tuple(weight.shape)} in {weight.dtype}")
    rate = torch.as_tensor(tau, dtype=torch.float32, device=weight.device)
    signs: Tensor = _weight_signs(weight if _is_dense(weight) else weight.contiguous(), rate)[0]
    return signs
