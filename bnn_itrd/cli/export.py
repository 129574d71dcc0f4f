"""``bnn-itrd export``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.config.parse import data_config, parser
from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.runs.recorded import validation_data

if TYPE_CHECKING:
    pass

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """``export PATH --to TARGET... --out DIR``: a trained network as files."""
    p = parser(
        "bnn-itrd export",
        "Write a trained network as files: onnx (one file that runs everywhere, 1 bit per binary weight), lce (.tflite "
        "for Larq Compute Engine: ARM phones and boards), qonnx (FPGA flows), finn (QONNX as FINN reads its padding).",
    )
    p.usage = "bnn-itrd export PATH [--to TARGET...] [--out FILE_OR_DIR] [--best] [--uint8] [--data NAME] ..."
    p.add_argument("path", help="run folder or checkpoint")
    p.add_argument("--to", nargs="+", default=["onnx"], help="onnx, lce, qonnx, finn; onnx by default")
    p.add_argument("--out", type=str, default=None, help="a folder, or for one target a file; beside the checkpoint")
    p.add_argument("--best", action="store_true", help="the epoch with the best top-1, not the last")
    p.add_argument("--uint8", action="store_true", help="uint8 images in: the ONNX file normalises them itself")
    p.add_argument("--lce_python", "--lce-python", type=str, default=None, help="a python with larq-compute-engine")
    p.add_argument("--json", action="store_true", help="print JSON")
    args, given = data_config(p, argv)
    from bnn_itrd.deploy.agreement import check_fits
    from bnn_itrd.deploy.targets import TARGETS, write_target
    from bnn_itrd.export import ExportError, traced_once
    from bnn_itrd.runs.load import load_member

    for name in args.to:
        if name not in TARGETS:
            raise unknown("target", name, TARGETS)
        if args.uint8 and name != "onnx":
            raise UserError(f"--uint8 is for ONNX files: {name} takes normalised images")
    model, identity, checkpoint = load_member(Path(args.path), best=args.best)
    stem = "teacher" if identity["name"] == "teacher" else "student"
    out = Path(args.out) if args.out else checkpoint.parent
    data = validation_data(identity, identity, given)
    check_fits(checkpoint, identity, data)
    rows: list[dict[str, Any]] = []
    failed = []
    with traced_once():
        for name in args.to:
            suffix = TARGETS[name].suffix
            file = out if len(args.to) == 1 and out.name.endswith(suffix) else out / f"{stem}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_target(
                    name,
                    model,
                    data,
                    file,
                    member=identity["name"],
                    checkpoint=checkpoint,
                    uint8=args.uint8,
                    python=args.lce_python if name == "lce" else None,
                )
                rows.append({"target": name, "file": str(file), "bytes": file.stat().st_size})
            except ExportError as error:
                if len(args.to) == 1:
                    raise
                # The other targets are written all the same.
                failed.append(f"{name}: {error}")
    if args.json:
        print(json.dumps({"files": rows, "failed": failed}, indent=1))
    else:
        print_table([{k: f"{v:,}" if k == "bytes" else v for k, v in row.items()} for row in rows])
        print("\n".join(f"FAILED: {line}" for line in failed), end="\n" if failed else "")
    return 1 if failed else 0
