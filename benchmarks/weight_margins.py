"""Measures how close the latent weights of trained binary networks are to the point where their sign flips.

    python benchmarks/weight_margins.py RUN/NETWORK ... [--out FILE.json]

It is for networks whose weights are binarised by ReCU, where a weight's sign is that of w - mean(filter). For some
distances it prints the share of weights with |w - mean| / std (of the filter) below them, and the same share for a
normal distribution. A small step flips the signs of weights close to the mean.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.load import load_member

DISTANCES = (0.01, 0.1, 0.5, 1.0, 2.0)


def margins(layer: BinaryConv2d) -> Tensor:
    """Returns |w - mean| / std for each weight of a layer, with mean and std of its filter; flat."""
    flat = layer.weight.detach().flatten(1)
    return ((flat - flat.mean(1, keepdim=True)).abs() / flat.std(1, keepdim=True)).flatten()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("members", type=Path, nargs="+", help="folders of trained networks")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    rows = {"normal distribution": [100 * math.erf(d / math.sqrt(2)) for d in DISTANCES]}
    for path in args.members:
        model, _, _ = load_member(path)
        every = torch.cat([margins(m) for m in model.modules() if isinstance(m, BinaryConv2d)])
        rows[path.name] = [100 * float((every < d).float().mean()) for d in DISTANCES]
    print(f"{'% of weights closer than':26}" + "".join(f"{d:>8}" for d in DISTANCES) + "  standard deviations")
    for name, values in rows.items():
        print(f"{name:26}" + "".join(f"{value:8.2f}" for value in values))
    if args.out is not None:
        args.out.write_text(json.dumps({"distances": DISTANCES, "percent": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
