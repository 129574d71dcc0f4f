"""Compares ReCU's fused GPU kernels with its definition in values, and their speed for several sizes of a block.

    python benchmarks/recu_kernels.py [--batch 256] [--out FILE.json]

The shapes are those of ResNet-18's binary layers on 32x32 images. A kernel's time is the median of repeated launches,
by events of the GPU. The bytes are those that it must read and write.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from triton.testing import do_bench

from bnn_itrd.environment import environment
from bnn_itrd.quant.kernels import recu as kernels
from bnn_itrd.quant.methods.recu import recu_activation, recu_weight

MAPS = ((64, 32), (128, 16), (256, 8), (512, 4))  # channels, and height and width
BLOCKS = ((2048, 8), (4096, 8), (4096, 16), (8192, 16), (8192, 32), (16384, 32))
DEVICE = torch.device("cuda")
Signs = Callable[[Tensor], Tensor]


def differences(x: Tensor, grad: Tensor, plain: Signs, fused: Signs) -> tuple[int, float]:
    """Returns the number of signs that differ, and the relative difference of the gradients."""
    made = []
    for function in (plain, fused):
        leaf = x.clone().requires_grad_()
        signs = function(leaf)
        signs.backward(grad)
        made.append((signs.detach(), leaf.grad.double()))
    (signs, want), (others, got) = made
    return int((signs != others).sum()), float((got - want).norm() / want.norm())


def microseconds(launch: Callable[[], object]) -> float:
    """Returns the median time of a launch."""
    return 1000 * float(do_bench(launch, warmup=5, rep=20, return_mode="median"))


def values(batch: int) -> dict[str, tuple[int, float]]:
    """Returns the differences from the definition, for activations in two precisions and for weights."""
    found = {}
    for channels, side in MAPS:
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(batch, channels, side, side, device=DEVICE).to(dtype, memory_format=torch.channels_last)
            grad = torch.randn_like(x)
            found[f"{tuple(x.shape)} {dtype}"] = differences(x, grad, recu_activation, kernels.fused_recu_activation)
        tau = torch.tensor(0.9, device=DEVICE)
        weight = 0.1 * torch.randn(channels, channels, 3, 3, device=DEVICE)
        found[f"weight {tuple(weight.shape)}"] = differences(
            weight,
            torch.randn_like(weight),
            lambda w, tau=tau: recu_weight(w, tau=tau),
            lambda w, tau=tau: kernels.fused_recu_weight(w, tau=tau),
        )
    return found


def times(x: Tensor, grad: Tensor, *, block: int, warps: int) -> tuple[float, float]:
    """Returns the microseconds of the forward and of the backward kernel of the activations."""
    signs, out = torch.empty_like(x), torch.empty_like(x)
    means, roots = (torch.empty(len(x), device=DEVICE) for _ in range(2))
    length, options = x[0].numel(), {"BLOCK": block, "num_warps": warps}
    forward = microseconds(lambda: kernels._forward[(len(x),)](x, signs, means, roots, length, 1e-5, **options))
    backward = microseconds(lambda: kernels._backward[(len(x),)](x, grad, means, roots, out, length, **options))
    return forward, backward


def speeds(batch: int) -> list[dict[str, float | str]]:
    """Returns the time of the activations' kernels for each shape and size of a block."""
    rows: list[dict[str, float | str]] = []
    for channels, side in MAPS:
        x = torch.randn(batch, channels, side, side, device=DEVICE).bfloat16()
        size = x.numel() * x.element_size()
        for block, warps in BLOCKS:
            if block > x[0].numel():
                continue
            forward, backward = times(x, torch.randn_like(x), block=block, warps=warps)
            rows.append(
                {
                    "shape": str(tuple(x.shape)),
                    "block": block,
                    "warps": warps,
                    "forward_us": forward,
                    "backward_us": backward,
                    "forward_gb_per_s": 2 * size / forward / 1000,
                    "backward_gb_per_s": 3 * size / backward / 1000,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.manual_seed(0)
    compared, rows = values(args.batch), speeds(args.batch)
    print(f"{torch.cuda.get_device_name()}, batch {args.batch}\n")
    print(f"{'':40}  {'signs that differ':>18}  {'gradient':>10}")
    for name, (signs, gradient) in compared.items():
        print(f"{name:40}  {signs:18,}  {gradient:10.1e}")
    print(f"\n{'bfloat16':20}  {'block':>7}  {'warps':>5}  {'forward us':>10}  {'GB/s':>6}", end="")
    print(f"  {'backward us':>11}  {'GB/s':>6}")
    for row in rows:
        print(
            f"{row['shape']:20}  {row['block']:7}  {row['warps']:5}  {row['forward_us']:10.1f}  "
            f"{row['forward_gb_per_s']:6,.0f}  {row['backward_us']:11.1f}  {row['backward_gb_per_s']:6,.0f}"
        )
    if args.out is not None:
        record = {"batch": args.batch, "values": compared, "rows": rows, "environment": environment(DEVICE)}
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
