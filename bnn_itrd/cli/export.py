"""The command ``bnn-itrd export``, which writes a trained network as files for deployment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.cli.options import add_best, add_json, add_own_network, add_python, check_pythons, python_of, say_note
from bnn_itrd.config.parse import data_config, parser
from bnn_itrd.console import print_record, print_table
from bnn_itrd.runs.recorded import recorded_facts, validation_data

if TYPE_CHECKING:
    from torch import nn

    from bnn_itrd.data.splits import ImageData, ImageFacts

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``export PATH --to TARGET... --out DIR``, which writes a trained network as files.

    Returns 0, or 1 if the network could not be written for one of several targets.
    """
    p = parser(
        "bnn-itrd export",
        "Write a trained network as files. The targets are onnx (one file that runs in every onnxruntime, with 1 bit "
        "per binary weight), onnx-plain (the same without ONNX functions, for OpenVINO and converters), lce (a .tflite "
        "for Larq Compute Engine on ARM phones and boards), qonnx (for FPGA tools) and finn (QONNX with the padding "
        "that FINN needs).",
    )
    p.usage = "bnn-itrd export PATH [--to TARGET...] [--out FILE_OR_DIR] [--uint8] [--data NAME] [--data.root ROOT]"
    p.add_argument("path", help="run folder or checkpoint")
    p.add_argument(
        "--to",
        nargs="+",
        default=["onnx"],
        metavar="TARGET",
        help="one or more of onnx, onnx-plain, lce, qonnx, finn",
    )
    p.add_argument(
        "--out",
        type=str,
        default=None,
        metavar="PATH",
        help="a folder, or for one target a file; the checkpoint's folder by default",
    )
    add_best(p)
    add_own_network(p)
    p.add_argument("--uint8", action="store_true", help="write ONNX files that take uint8 images and normalise them")
    add_python(p, "lce")
    add_json(p)
    args, given = data_config(p, argv)
    from bnn_itrd.deploy.agreement import check_fits
    from bnn_itrd.deploy.targets import TARGETS, check_target
    from bnn_itrd.runs.load import load_member

    for name in args.to:
        check_target(name, uint8=args.uint8)
    check_pythons(args, [TARGETS[name].runtime for name in args.to])
    model, identity, checkpoint = load_member(
        args.path, model=args.model, best=args.best, trust=args.trust, say=say_note
    )
    out = Path(args.out) if args.out else checkpoint.parent
    facts = None if given else recorded_facts(identity)
    data = facts or validation_data(identity, identity, given, trust=args.trust)
    check_fits(checkpoint, identity, data)
    python = python_of(args, "lce")
    rows, failed = _write_files(
        args.to, model, data, out, member=identity["name"], checkpoint=checkpoint, uint8=args.uint8, python=python
    )
    if args.json:
        print(json.dumps({"files": rows, "failed": failed}, indent=1))
    else:
        print_table([{k: f"{v:,}" if k == "bytes" else v for k, v in row.items()} for row in rows])
        for line in failed:
            print_record(f"FAILED: {line}")
    return 1 if failed else 0


def _write_files(
    names: Sequence[str],
    model: nn.Module,
    data: ImageData | ImageFacts,
    out: Path,
    *,
    member: str,
    checkpoint: Path,
    uint8: bool,
    python: str | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes the network as a file for each target; returns (rows, errors).

    names: the targets. member: the network's name in its run. out: a folder, or the file if there is one target.
    python: a Python interpreter with larq-compute-engine. rows: target, file and bytes of each file that was written.
    errors: a line of text for each target that failed. Raises ExportError if there is one target and it failed.
    """
    from bnn_itrd.deploy.targets import TARGETS, write_target
    from bnn_itrd.export import ExportError, traced_once

    stem = "teacher" if member == "teacher" else "student"
    rows: list[dict[str, Any]] = []
    failed = []
    with traced_once():
        for name in names:
            suffix = TARGETS[name].suffix
            file = out if len(names) == 1 and out.name.endswith(suffix) else out / f"{stem}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            own = python if name == "lce" else None
            try:
                write_target(name, model, data, file, member=member, checkpoint=checkpoint, uint8=uint8, python=own)
                rows.append({"target": name, "file": str(file), "bytes": file.stat().st_size})
            except ExportError as error:
                if len(names) == 1:
                    raise
                # The other targets are written all the same.
                failed.append(f"{name}: {error}")
    return rows, failed
