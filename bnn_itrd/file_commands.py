"""The commands that use a trained network or a file: evaluate, predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.options import data_config, parse, parser

if TYPE_CHECKING:
    from bnn_itrd.data import ImageData

__all__ = ["evaluate", "predict", "recorded", "validation_data"]


def validation_data(known: dict[str, Any], config: dict[str, Any], given: dict[str, Any]) -> ImageData:
    """The data set a network was trained on, with what the command line says instead, normalised as it learned it.

    known: what the network carries (a checkpoint's identity, a file's metadata); config: the run's configuration.
    """
    from bnn_itrd.config import DataConfig
    from bnn_itrd.data import load_data

    saved = dict(config.get("data") or {})
    fields = {k: v for k, v in saved.items() if k in DataConfig.__dataclass_fields__}
    if known.get("dataset"):
        fields.setdefault("name", str(known["dataset"]))
    if "name" in given and given["name"] != fields.get("name"):
        fields.pop("root", None)
    data = load_data(DataConfig(**{**fields, **given}))
    if "mean" in known and "std" in known and len(known["mean"]) == data.input_shape[0]:
        data = data.normalised_with(known["mean"], known["std"])
    return data


def recorded(path: Path) -> dict[str, Any]:
    """What the run's config.yaml beside an exported file says of it; nothing where there is none."""
    import yaml

    config = path.parent / "config.yaml"
    tree = yaml.safe_load(config.read_text()) if config.is_file() else None
    return tree if isinstance(tree, dict) else {}


def evaluate(argv: Sequence[str]) -> int:
    """``evaluate PATH [--data ...]``: accuracy on the test images, in float32."""
    p = parser("bnn-itrd evaluate", "Accuracy of a trained network (run folder, checkpoint) or an exported file.")
    p.usage = "bnn-itrd evaluate PATH [--best] [--data NAME] [--data.root ROOT] [--json]"
    p.add_argument("path", help="run folder, checkpoint or exported file")
    p.add_argument("--best", action="store_true", help="the epoch with the best top-1, not the last")
    p.add_argument("--lce_python", "--lce-python", type=str, default=None, help="a python with larq-compute-engine")
    p.add_argument("--fpga_python", "--fpga-python", type=str, default=None, help="a python with qonnx")
    p.add_argument("--json", action="store_true", help="print JSON")
    args, given = data_config(p, argv)
    import torch

    from bnn_itrd.artefacts import check_fits, run_split
    from bnn_itrd.evaluation import score
    from bnn_itrd.members import load_member
    from bnn_itrd.targets import TARGETS, metadata_of, open_file, target_of

    path = Path(args.path)
    if any(path.name.endswith(target.suffix) for target in TARGETS.values()):
        python = {"lce": args.lce_python, "fpga": args.fpga_python}.get(target_of(path).runtime or "")
        known = metadata_of(path, python=python)
        data = validation_data(known, recorded(path), given)
        check_fits(path, known, data)
        _, logits, labels = run_split(None, open_file(path, python=python), data)
    else:
        model, known, path = load_member(path, best=args.best)
        data = validation_data(known, known, given)
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
        print(
            f"{path}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, cross-entropy {result.loss:.4f} "
            f"on {len(labels)} test images of {data.name}"
        )
    return 0


def predict(argv: Sequence[str]) -> int:
    """``predict FILE IMAGE...``: class names and probabilities."""
    p = parser("bnn-itrd predict", "Classify image files with an .onnx file written by bnn-itrd.")
    p.add_argument("file", help=".onnx file")
    p.add_argument("images", nargs="+", help="image files")
    p.add_argument("--top", type=int, default=3, help="how many classes to show")
    args = parse(p, argv)
    from bnn_itrd.predict import predict as classify

    for result in classify(Path(args.file), [Path(i) for i in args.images], top=max(1, args.top)):
        guesses = ", ".join(
            f"{name} {100 * share:.1f} %" for name, share in zip(result.classes, result.probabilities, strict=True)
        )
        print(f"{result.path}: {guesses}")
    return 0
