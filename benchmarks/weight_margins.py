"""How far a trained binary network's latent weights lie from the threshold of their sign.

    python benchmarks/weight_margins.py RUN/MEMBER ... [--out FILE.json]

For networks of ReCU's weights, whose sign is that of w - mean of the filter: the share of |w - mean| / std (per filter)
below some distances, beside that of a normal distribution. Weights near 0 are those that a small step flips.
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
    """|w - mean| / std over each filter, flat."""
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
