"""The commands that take a trained network or a file: evaluate, export, validate, predict."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError
from bnn_itrd.options import data_config, parse, parser

if TYPE_CHECKING:
    from bnn_itrd.data import ImageData

__all__ = ["evaluate", "export", "predict", "validate"]


def _data(known: dict[str, Any], recorded: dict[str, Any], given: dict[str, Any]) -> ImageData:
    """The data set a network was trained on, with what the command line says instead, normalised as it learned it.

    known: what the network carries (a checkpoint's identity, a file's metadata); recorded: the run's configuration.
    """
    from bnn_itrd.config import DataConfig
    from bnn_itrd.data import load_data

    saved = dict(recorded.get("data") or {})
    fields = {k: v for k, v in saved.items() if k in DataConfig.__dataclass_fields__}
    if "name" in given and given["name"] != fields.get("name"):
        fields.pop("root", None)
    data = load_data(DataConfig(**{**fields, **given}))
    if "mean" in known and "std" in known and len(known["mean"]) == data.input_shape[0]:
        data = data.normalised_with(known["mean"], known["std"])
    return data


def _recorded(path: Path) -> dict[str, Any]:
    """What the run's config.yaml beside an exported file says of it; nothing where there is none."""
    import yaml

    config = path.parent / "config.yaml"
    tree = yaml.safe_load(config.read_text()) if config.is_file() else None
    return tree if isinstance(tree, dict) else {}


def evaluate(argv: Sequence[str]) -> int:
    """``evaluate PATH [--data ...]``: accuracy on the test images, in float32."""
    p = parser("bnn-itrd evaluate", "Accuracy of a trained network (run folder, checkpoint) or an .onnx file.")
    p.usage = "bnn-itrd evaluate PATH [--best] [--data NAME] [--data.root ROOT] [--json]"
    p.add_argument("path", help="run folder, checkpoint or .onnx file")
    p.add_argument("--best", action="store_true", help="the epoch with the best top-1, not the last")
    p.add_argument("--json", action="store_true", help="print JSON")
    args, given = data_config(p, argv)
    import torch

    from bnn_itrd.artefacts import check_fits, run_split
    from bnn_itrd.evaluation import score
    from bnn_itrd.export import read_metadata, session
    from bnn_itrd.members import load_member

    path = Path(args.path)
    if path.suffix == ".onnx":
        known = read_metadata(path)
        data = _data(known, _recorded(path), given)
        check_fits(path, known, data)
        _, logits, labels = run_split(None, session(path), data)
    else:
        model, known, path = load_member(path, best=args.best)
        data = _data(known, known, given)
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


def export(argv: Sequence[str]) -> int:
    """``export PATH --out FILE``: a trained network to portable ONNX."""
    p = parser("bnn-itrd export", "Write a trained network as a portable ONNX file, 1 bit per binary weight.")
    p.usage = "bnn-itrd export PATH [--out FILE] [--best] [--uint8] [--data NAME] [--data.root ROOT]"
    p.add_argument("path", help="run folder or checkpoint")
    p.add_argument("--out", type=str, default=None, help="the file; student.onnx beside the checkpoint by default")
    p.add_argument("--best", action="store_true", help="the epoch with the best top-1, not the last")
    p.add_argument("--uint8", action="store_true", help="uint8 images in: the file normalises them itself (for boards)")
    args, given = data_config(p, argv)
    from bnn_itrd.artefacts import check_fits, write_onnx
    from bnn_itrd.members import load_member

    model, identity, file = load_member(Path(args.path), best=args.best)
    name = "student.onnx" if identity.get("scheme") else "teacher.onnx"
    out = Path(args.out) if args.out else file.parent / name
    if out.suffix != ".onnx":
        out = out / name
    out.parent.mkdir(parents=True, exist_ok=True)
    data = _data(identity, identity, given)
    check_fits(file, identity, data)
    write_onnx(model, data, out, member=identity["name"], checkpoint=file, uint8=args.uint8)
    print(f"{out}: {out.stat().st_size:,} bytes")
    return 0


def validate(argv: Sequence[str]) -> int:
    """``validate FILE --data ...``: the file against its network; exit 1 past the stated limits."""
    p = parser(
        "bnn-itrd validate",
        "Run an .onnx file and the network it came from on the test images and compare them. Without a network (only "
        "the file was kept), the file's accuracy is compared with the row of comparison.json beside it.",
    )
    p.usage = "bnn-itrd validate FILE [--checkpoint PATH] [--data NAME] [--data.root ROOT] [--min_agreement PERCENT]"
    p.add_argument("file", help=".onnx file written by bnn-itrd")
    p.add_argument("--checkpoint", type=str, default=None, help="the network; last.pt beside the file by default")
    p.add_argument("--min_agreement", type=float, default=99.9, help="percent of images with the same class, at least")
    p.add_argument("--max_difference", type=float, default=None, help="of a logit, at most; no limit by default")
    p.add_argument("--threads", type=int, default=1, help="of onnxruntime")
    p.add_argument("--images", type=int, default=None, help="only so many test images, from the first")
    p.add_argument("--json", action="store_true", help="print JSON")
    args, given = data_config(p, argv)
    from bnn_itrd.artefacts import check_fits
    from bnn_itrd.export import read_metadata, session

    path = Path(args.file)
    if args.threads < 1 or (args.images is not None and args.images < 1):
        raise UserError("--threads and --images must be >= 1")
    opened = session(path, threads=args.threads)
    known = read_metadata(path)
    checkpoint = Path(args.checkpoint) if args.checkpoint else path.parent / "last.pt"
    data = _data(known, _recorded(path), given)
    check_fits(path, known, data)
    if args.checkpoint or checkpoint.is_file():
        _check_source(path, known, checkpoint)
        values, lines = _against_network(checkpoint, opened, data, args)
    else:
        values, lines = _against_record(path, opened, data, args.images)
    if args.json:
        print(json.dumps({"file": str(path), **values}, indent=1))
    else:
        print_table([{"file": str(path), **{k: _cell(k, v) for k, v in values.items() if k in _COLUMNS}}])
        print("\n".join([*lines, *(f"FAILED: {line}" for line in values["failed"])]), end="\n" if lines else "")
    return 1 if values["failed"] else 0


_COLUMNS = {
    "images": ",",
    "top1_pytorch": ".2f",
    "top1_file": ".2f",
    "top1_recorded": ".2f",
    "agreement": ".3f",
    "max_difference": ".2e",
    "median_difference": ".2e",
}


def _cell(key: str, value: float | None) -> str:
    return "-" if value is None else format(value, _COLUMNS[key])


def _check_source(path: Path, known: dict[str, Any], checkpoint: Path) -> None:
    """Says so where the file was exported from another state of the checkpoint than the one it is held against."""
    from bnn_itrd.checkpoint import file_hash

    source = known.get("source_sha256")
    if source and checkpoint.is_file() and file_hash(checkpoint) != source:
        print(f"note: {path} was exported from another state of {checkpoint}", file=sys.stderr)


def _against_network(checkpoint: Path, opened: Any, data: ImageData, args: Any) -> tuple[dict[str, Any], list[str]]:
    """The file and its network on the same images: (values, lines on single images)."""
    from bnn_itrd.artefacts import check_fits, run_split
    from bnn_itrd.export import agreement
    from bnn_itrd.members import load_member

    model, identity, file = load_member(checkpoint)
    check_fits(file, identity, data)
    theirs, ours, labels = run_split(model, opened, data, limit=args.images)
    assert theirs is not None and ours is not None
    result = agreement(theirs, ours, labels)
    share = 100 * result.argmax_agreement
    failed = []
    if share < args.min_agreement:
        failed.append(f"agreement {share:.3f} % is below {args.min_agreement} %")
    # Not >: a difference that is not a number fails too.
    if args.max_difference is not None and not result.max_difference <= args.max_difference:
        failed.append(f"largest difference {result.max_difference:.3g} is above {args.max_difference:.3g}")
    values = {
        "checkpoint": str(file),
        "images": result.images,
        "top1_pytorch": 100 * (result.top1_model or 0.0),
        "top1_file": 100 * (result.top1_file or 0.0),
        "agreement": share,
        "max_difference": result.max_difference,
        "median_difference": result.median_difference,
        "disagreements": [
            {"index": d.image, "torch": d.model_class, "file": d.file_class} for d in result.disagreements
        ],
        "failed": failed,
    }
    lines = [
        f"image {d.image}: PyTorch says {data.classes[d.model_class]}, the file {data.classes[d.file_class]} "
        f"(PyTorch's margin {d.margin:.2e})"
        for d in result.disagreements[:10]
    ]
    return values, lines


def _against_record(path: Path, opened: Any, data: ImageData, limit: int | None) -> tuple[dict[str, Any], list[str]]:
    """The file alone: its accuracy against the row that was recorded when it was made."""
    import torch

    from bnn_itrd.artefacts import run_split
    from bnn_itrd.evaluation import score

    _, ours, labels = run_split(None, opened, data, limit=limit)
    assert ours is not None
    result = score(torch.from_numpy(ours), torch.from_numpy(labels))
    recorded = _recorded_top1(path)
    whole = len(labels) == len(data.test)
    failed = []
    if recorded is not None and whole and abs(result.top1 - recorded) > 0.1:
        failed.append(f"top-1 {result.top1:.2f} % is not the recorded {recorded:.2f} %")
    values = {"images": len(labels), "top1_file": result.top1, "top1_recorded": recorded, "failed": failed}
    lines = ["no checkpoint beside the file: its network was not run (--checkpoint PATH names one)"]
    if recorded is not None and not whole:
        lines.append("not all test images: the recorded top-1 is shown, not compared")
    return values, lines


def _recorded_top1(path: Path) -> float | None:
    record = path.parent / "comparison.json"
    if not record.is_file():
        return None
    for model in json.loads(record.read_text())["models"]:
        for artefact in model.get("artefacts") or []:
            if artefact["file"] == path.name:
                return float(artefact["top1"])
    return None


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
