"""The command ``bnn-itrd evaluate``, which prints the accuracy of a trained network or an exported file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bnn_itrd.cli.options import (
    add_best,
    add_json,
    add_own_network,
    add_python,
    check_pythons,
    check_unused,
    python_of,
    say_note,
)
from bnn_itrd.config.parse import data_config, parser
from bnn_itrd.console import print_record
from bnn_itrd.runs.recorded import recorded, validation_data
from bnn_itrd.words import counted

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``evaluate PATH [--data ...]``, which prints the accuracy on the test images in float32; returns 0."""
    p = parser(
        "bnn-itrd evaluate",
        "Print the accuracy of a trained network (run folder or checkpoint), or of an exported file, on the test "
        "images.",
    )
    p.usage = "bnn-itrd evaluate PATH [--best] [--data NAME] [--data.root ROOT] [--json]"
    p.add_argument("path", help="run folder, checkpoint or exported file")
    add_best(p)
    add_own_network(p)
    add_python(p, "lce")
    add_python(p, "fpga")
    add_json(p)
    args, given = data_config(p, argv)
    import torch

    from bnn_itrd.deploy.agreement import check_fits, run_split
    from bnn_itrd.deploy.targets import TARGETS, metadata_of, open_file, target_of
    from bnn_itrd.runs.load import load_member
    from bnn_itrd.training.evaluation import score

    path = Path(args.path)
    if any(path.name.endswith(target.suffix) for target in TARGETS.values()):
        check_unused(args, ("model", "best"), args.path, "an exported file")
        runtime = target_of(path).runtime
        check_pythons(args, [runtime])
        python = python_of(args, runtime)
        known = metadata_of(path, python=python)
        data = validation_data(known, recorded(path), given, trust=args.trust)
        check_fits(path, known, data)
        _, logits, labels = run_split(None, open_file(path, python=python), data)
    else:
        check_pythons(args, [])
        model, known, path = load_member(path, model=args.model, best=args.best, trust=args.trust, say=say_note)
        data = validation_data(known, known, given, trust=args.trust)
        check_fits(path, known, data)
        logits, _, labels = run_split(model, None, data)
    assert logits is not None
    result = score(torch.from_numpy(logits), torch.from_numpy(labels))
    values = {
        "path": str(path),
        "images": len(labels),
        "top1": result.top1,
        "top5": result.top5,
        "loss": result.loss,
    }
    if args.json:
        print(json.dumps(values, indent=1))
    else:
        print_record(
            f"{path}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, cross-entropy {result.loss:.4f} "
            f"on {counted(len(labels), 'test image')} of {data.name}"
        )
    return 0
