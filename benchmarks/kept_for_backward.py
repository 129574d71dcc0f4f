"""Measures the memory that a binary student's forward pass keeps for its backward pass, under bfloat16 autocast.

    python benchmarks/kept_for_backward.py [--network resnet18] [--batch 4] [--out FILE.json]

In eager mode every layer keeps the tensors that autograd needs, and the table has a row for each kind of layer and
dtype. When compiled, torch splits the graph of both passes where the fewest bytes have to be kept, and recomputes the
rest; then the table has a row for each dtype. Bytes per image are those of tensors whose first axis is the batch; the
other tensors belong to the weights and do not depend on the batch. Tensors that share memory count once, and parameters
are not counted. The script runs on a CPU. It compiles with torch's partitioner but without its code generator
(inductor), which may change what is kept on a GPU.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_itrd.environment import environment
from bnn_itrd.models import MODELS
from bnn_itrd.quant import Scheme

# Name -> (scheme, options of the network).
NETWORKS: dict[str, tuple[Scheme, dict[str, Any]]] = {
    "ReCU": (Scheme(), {}),
    "ReCU, RSign, RPReLU, shortcut per conv, float downsample": (
        Scheme(activation="rsign", nonlinearity="rprelu"),
        {"per_conv": True, "float_downsample": True},
    ),
}


def kept(model: nn.Module, batch: int, *, compiled: bool) -> dict[str, dict[str, float]]:
    """Returns the KiB that a forward pass keeps: ``{row: {"per_image": ..., "constant": ...}}``.

    A row is a kind of layer and a dtype, or a dtype alone if `compiled`. per_image: of tensors with the batch as first
    axis, for one image; constant: of all others.
    """
    inside: list[str] = []
    handles = []
    if not compiled:
        for module in model.modules():
            name = type(module).__name__
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
            handles.append(module.register_forward_hook(lambda *_: inside.pop() and None))
    seen = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: list[Tensor] = []  # keeps every tensor alive, so that no address is used twice
    per_image: Counter[str] = Counter()
    constant: Counter[str] = Counter()

    def pack(tensor: Tensor) -> Tensor:
        """Counts a tensor that autograd keeps, and returns it."""
        held.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kind = str(tensor.dtype).removeprefix("torch.")
            row = kind if compiled else f"{inside[-1]}, {kind}"
            whole = tensor.dim() > 0 and len(tensor) == batch
            (per_image if whole else constant)[row] += storage.nbytes()
        return tensor

    run = torch.compile(model, backend="aot_eager_decomp_partition") if compiled else model
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        run(images)
    for handle in handles:
        handle.remove()
    rows = sorted(per_image.keys() | constant.keys(), key=lambda row: -per_image[row])
    return {row: {"per_image": per_image[row] / batch / 1024, "constant": constant[row] / 1024} for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument(
        "--batch",
        type=int,
        default=5,
        help="images; no layer may have so many channels",
    )
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    record: dict[str, Any] = {"network": args.network, "batch": args.batch}
    for name, (scheme, options) in NETWORKS.items():
        for form in ("eager", "compiled"):
            torch.manual_seed(0)
            torch.compiler.reset()
            model = MODELS[args.network](10, binary=scheme, **options).to(memory_format=torch.channels_last)
            rows = kept(model, args.batch, compiled=form == "compiled")
            print(f"\n{args.network}, {name}, {form}\n{'':34}  {'KiB per image':>14}  {'KiB of weights':>14}")
            total = {key: sum(row[key] for row in rows.values()) for key in ("per_image", "constant")}
            for row, values in {**rows, "all": total}.items():
                print(f"{row:34}  {values['per_image']:14,.1f}  {values['constant']:14,.1f}")
            record.setdefault(name, {})[form] = {**rows, "all": total}
    if args.out is not None:
        record["environment"] = environment(torch.device("cpu"))
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
