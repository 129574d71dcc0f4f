"""Measures what half precision does to a trained binary network: to the sums of its binary layers, signs and accuracy.

    python benchmarks/autocast_sums.py RUN/NETWORK --data.root cifar10.npz [--images 2000] [--out FILE.json]

On the first test images the network in float32 is compared with itself in bfloat16 and in float16, each in two ways:
with only the sums of the binary layers rounded to that type, and as a whole under autocast. A sum of n products of +1
and -1 is even if n is even, which n is in every layer with an even number of channels. bfloat16, with 8 significant
bits, represents even sums exactly up to 512, and float16, with 11, up to 4,096. The other parts in half precision
(normalisation, residual connections) can move a value across a sign's threshold. So the share of signs that differ is
printed for each binary layer, in order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.environment import environment
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.load import load_member

TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class _Rounded:
    """A context in which the sums of all binary convolutions are rounded to a dtype.

    sums, inexact: how many sums there were, and how many the rounding changed; largest: the largest absolute sum.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.sums, self.inexact, self.largest = dtype, 0, 0, 0.0

    def __enter__(self) -> _Rounded:
        self.plain = plain = BinaryConv2d._convolve

        def convolve(layer: BinaryConv2d, signs: Tensor, weight: Tensor) -> Tensor:
            """Returns a layer's rounded sums, and counts them."""
            sums = plain(layer, signs, weight)
            rounded = sums.to(self.dtype).float()
            self.sums += sums.numel()
            self.inexact += int((rounded != sums).sum())
            self.largest = max(self.largest, float(sums.abs().max()))
            return rounded

        BinaryConv2d._convolve = convolve  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        BinaryConv2d._convolve = self.plain  # type: ignore[method-assign]


class _Signs:
    """A context in which the signs of the inputs of every binary convolution of a network are recorded."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [m for m in model.modules() if isinstance(m, BinaryConv2d)]
        self.seen: list[list[Tensor]] = [[] for _ in self.layers]

    def __enter__(self) -> _Signs:
        def note(kept: list[Tensor]) -> Any:
            """Returns a hook that appends the signs of a layer's input to a list."""
            return lambda layer, inputs: kept.append(inputs[0] >= 0)

        hooks = zip(self.layers, self.seen, strict=True)
        self.hooks = [layer.register_forward_pre_hook(note(kept)) for layer, kept in hooks]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def differing(self, other: _Signs) -> list[float]:
        """Returns the percentage of signs that differ from another recording, for each layer."""
        pairs = zip(self.seen, other.seen, strict=True)
        return [100 * float((torch.cat(a) != torch.cat(b)).float().mean()) for a, b in pairs]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("member", type=Path, help="the folder of a binary network trained on CIFAR-10")
    parser.add_argument("--data.root", dest="root", required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    model, identity, _ = load_member(args.member)
    data = load_data(DataConfig(name="cifar10", root=args.root))
    data = data.normalised_with(identity["mean"], identity["std"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    batches = []
    for images, labels, _ in data.test.eval_batches(250, device=device):
        batches.append((images, labels))
        if 250 * len(batches) >= args.images:
            break
    truth = torch.cat([labels for _, labels in batches])

    def logits() -> Tensor:
        """Returns the network's logits for all images, in float32."""
        return torch.cat([model(images).float() for images, _ in batches])

    with _Signs(model) as signs:
        exact = logits()
    rows: dict[str, dict[str, Any]] = {"float32": {"top1": 100 * float((exact.argmax(1) == truth).float().mean())}}
    flips: dict[str, list[float]] = {}
    for name, dtype in TYPES.items():
        with _Rounded(dtype) as rounded:
            sums_only = logits()
        with torch.autocast(device.type, dtype=dtype), _Signs(model) as half_signs:
            whole = logits()
        flips[name] = signs.differing(half_signs)
        counted = {"largest_sum": rounded.largest, "inexact_sums_ppm": 1e6 * rounded.inexact / rounded.sums}
        for what, result, more in ((f"{name}: sums only", sums_only, counted), (f"{name}: autocast", whole, {})):
            rows[what] = {
                "top1": 100 * float((result.argmax(1) == truth).float().mean()),
                "same_class_as_float32": 100 * float((result.argmax(1) == exact.argmax(1)).float().mean()),
                "mean_logit_error": float((result - exact).abs().mean()),
                **more,
            }
    for what, row in rows.items():
        print(f"{what:22}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    for name, percents in flips.items():
        print(f"{name}, signs that differ, % by layer: " + " ".join(f"{p:.2f}" for p in percents))
    if args.out is not None:
        record = {"network": identity["network"]["name"], "images": len(truth), "rows": rows, "sign_flips": flips}
        args.out.write_text(json.dumps({**record, "environment": environment(device)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
