"""``bnn-itrd validate`` compares exported files with the network that they came from."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.cli.options import add_json, add_own_network, add_python, add_threads, check_pythons, python_of
from bnn_itrd.config.parse import data_config, parser
from bnn_itrd.console import print_record, print_table
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.runs.comparison_file import read_comparison
from bnn_itrd.runs.recorded import recorded, validation_data
from bnn_itrd.words import counted

if TYPE_CHECKING:
    from bnn_itrd.data.splits import ImageData
    from bnn_itrd.deploy.targets import OpenFile

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``validate FILE... --data ...``, which compares files with their network; returns 1 beyond the limits."""
    p = parser(
        "bnn-itrd validate",
        "Run exported files and the network they came from on the test images and compare them. Without the network, "
        "the file's accuracy is compared with that in comparison.json in its folder. A .tflite runs in Larq Compute "
        "Engine's own interpreter and a .qonnx.onnx in qonnx, each in an environment of its own that --setup installs.",
    )
    p.usage = "bnn-itrd validate FILE... [--checkpoint PATH] [--data NAME] [--data.root ROOT] [--min_agreement PERCENT]"
    p.add_argument("files", nargs="*", help="files written by bnn-itrd")
    p.add_argument(
        "--setup", nargs="+", default=[], metavar="RUNTIME", help="first install a runtime's environment: lce, fpga"
    )
    p.add_argument(
        "--checkpoint", type=str, default=None, metavar="PATH", help="the network; by default last.pt next to the file"
    )
    add_own_network(p)
    p.add_argument(
        "--min_agreement", type=float, default=None, help="least percent of equal classes; 99.9 (lce: 99) or one image"
    )
    p.add_argument("--max_difference", type=float, default=None, help="largest difference of a logit; any by default")
    add_threads(p)
    p.add_argument(
        "--images",
        type=int,
        default=None,
        help="number of test images; by default 200 for qonnx, 1000 for onnx-plain, else all",
    )
    p.add_argument("--stock", action="store_true", help="run without the native library")
    add_python(p, "lce")
    add_python(p, "fpga")
    add_json(p)
    args, given = data_config(p, argv)
    if args.threads < 1 or (args.images is not None and args.images < 1):
        raise UserError("--threads and --images must be >= 1")
    if not args.files and not args.setup:
        raise UserError("bnn-itrd validate needs a file, or --setup lce or fpga")
    _check_options(args)
    _set_up(args.setup, quiet=args.json)
    results = [_validated(Path(file), args, given) for file in args.files]
    if args.json:
        rows = [{"file": file, **values} for file, (values, _) in zip(args.files, results, strict=True)]
        print(json.dumps(rows[0] if len(rows) == 1 else rows, indent=1))
    elif results:
        columns = [key for key in _COLUMNS if any(key in values for values, _ in results)]
        print_table(
            [
                {"file": file, **{key: _cell(key, values.get(key)) for key in columns}}
                for file, (values, _) in zip(args.files, results, strict=True)
            ]
        )
        for file, (values, lines) in zip(args.files, results, strict=True):
            for line in [*lines, *(f"FAILED: {line}" for line in values["failed"])]:
                print_record(line if len(results) == 1 else f"{file}: {line}")
    return 1 if any(values["failed"] for values, _ in results) else 0


def _check_options(args: Any) -> None:
    """Raises UserError on an option that does nothing for these files."""
    from bnn_itrd.deploy.targets import target_of

    runtimes = []
    for file in args.files:
        with contextlib.suppress(UserError):  # told where the file is opened
            runtimes.append(target_of(Path(file)).runtime)
    check_pythons(args, runtimes)
    if args.stock and args.files and None not in runtimes:
        raise UserError("--stock is for .onnx files that onnxruntime runs, and none is given: leave it out")


def _set_up(names: Sequence[str], *, quiet: bool) -> None:
    """Installs the environments; quiet: print to standard error, since standard output is for JSON."""
    from bnn_itrd.export.runtimes import environments

    out = sys.stderr if quiet else sys.stdout

    for name in names:
        if name not in environments.RUNTIMES:
            raise unknown("runtime", name, environments.RUNTIMES)
        print(f"{name}: {environments.setup(name, report=lambda line: print(line, file=out))}", file=out)


# The number of single images that are printed for a file.
_SHOWN = 10
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


def _validated(path: Path, args: Any, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Calls `_validate_one`; if there are several files, one that cannot be used becomes a row with its error."""
    from bnn_itrd.export import ExportError

    try:
        return _validate_one(path, args, given)
    except (UserError, ExportError, FileNotFoundError) as error:
        if len(args.files) == 1:
            raise
        return {"failed": [str(error)]}, []


def _validate_one(path: Path, args: Any, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the results of one file as (values, lines of text)."""
    from bnn_itrd.deploy.agreement import check_fits
    from bnn_itrd.deploy.targets import metadata_of, open_file, target_of
    from bnn_itrd.runs.load import load_member

    target = target_of(path)
    python = python_of(args, target.runtime)
    opened = open_file(path, threads=args.threads, native=False if args.stock else None, python=python)
    known = metadata_of(path, python=python)
    checkpoint = Path(args.checkpoint) if args.checkpoint else path.parent / "last.pt"
    member = None
    if args.checkpoint or checkpoint.is_file():
        member = load_member(checkpoint, model=args.model, trust=args.trust)
    # The settings of the data are those of the run's config.yaml, or else of the checkpoint.
    data = validation_data(known, recorded(path) or (member[1] if member else {}), given, trust=args.trust)
    check_fits(path, known, data)
    limit = args.images or target.images
    if member is None:
        return _against_record(opened, data, limit)
    check_fits(member[2], member[1], data)
    _check_source(path, known, member[2])
    values, lines = _against_network(member[0], opened, data, limit, args.min_agreement, args.max_difference)
    values = {"target": target.name, "checkpoint": str(member[2]), **values}
    if target.name == "qonnx":
        values["cost"], line = _cost(path, python)
        lines.insert(0, line)
    return values, lines


def _check_source(path: Path, known: dict[str, Any], checkpoint: Path) -> None:
    """Prints a note if the file was exported from another state of the checkpoint with which it is compared."""
    from bnn_itrd.files import file_hash

    source = known.get("source_sha256")
    if source and checkpoint.is_file() and file_hash(checkpoint) != source:
        print(f"note: {path} was exported from another state of {checkpoint}", file=sys.stderr)


def _against_network(
    model: Any, opened: OpenFile, data: ImageData, limit: int | None, least: float | None, most: float | None
) -> tuple[dict[str, Any], list[str]]:
    """Compares a file with its network on the same images; returns (values, lines about single images)."""
    from bnn_itrd.deploy.agreement import compare_split
    from bnn_itrd.deploy.targets import judge
    from bnn_itrd.export import agreement

    compared = compare_split(model, opened, data, limit=limit)
    result = agreement(compared.theirs, compared.ours, compared.labels)
    share = 100 * result.argmax_agreement
    reason = judge(opened.target, share, result.images, result.median_difference, min_agreement=least)
    failed = [reason] if reason else []
    # `not <=`, and not `>`, so that NaN fails too.
    if most is not None and not result.max_difference <= most:
        failed.append(f"largest difference {result.max_difference:.3g} is above {most:.3g}")
    values = {
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
        for d in result.disagreements[:_SHOWN]
    ]
    if compared.outliers is not None:
        values["outliers"] = [
            {"index": o.image, "difference": o.difference, "differing": o.differing, "layer": o.layer}
            for o in compared.outliers
        ]
        lines += [
            f"image {o.image}: logits differ by {o.difference:.2e}, {counted(o.differing, 'value')} first at "
            f"{o.layer or 'no layer'}"
            for o in compared.outliers[:_SHOWN]
        ]
        if len(compared.outliers) > _SHOWN:
            more = counted(len(compared.outliers) - _SHOWN, "more image")
            lines.append(f"{more} with other logits: --json lists them")
    return values, lines


def _cost(path: Path, python: str | None) -> tuple[dict[str, Any], str]:
    """Returns the inference cost that qonnx computes, as values and as a line of text."""
    from bnn_itrd.export.fpga import inference_cost

    cost = inference_cost(path, python=python)
    line = (
        f"by qonnx's inference_cost: {cost['total_bops'] / 1e9:.4g} G BOPs, "
        f"{cost['total_mem_w_bits'] / 1e6:.4g} Mbit of weights"
    )
    return dict(cost), line


def _against_record(opened: OpenFile, data: ImageData, limit: int | None) -> tuple[dict[str, Any], list[str]]:
    """Compares a file's accuracy with the one recorded in comparison.json; returns (values, lines of text)."""
    import torch

    from bnn_itrd.deploy.agreement import run_split
    from bnn_itrd.training.evaluation import score

    _, ours, labels = run_split(None, opened, data, limit=limit)
    assert ours is not None
    result = score(torch.from_numpy(ours), torch.from_numpy(labels))
    known = _recorded_top1(opened.path)
    whole = len(labels) == len(data.test)
    failed = []
    if known is not None and whole and abs(result.top1 - known) > 0.1:
        failed.append(f"top-1 {result.top1:.2f} % is not the recorded {known:.2f} %")
    values = {
        "target": opened.target.name,
        "images": len(labels),
        "top1_file": result.top1,
        "top1_recorded": known,
        "failed": failed,
    }
    lines = ["no checkpoint in the file's folder: its network was not run (--checkpoint PATH names one)"]
    if known is not None and not whole:
        lines.append("not all test images: the recorded top-1 is shown, not compared")
    return values, lines


def _recorded_top1(path: Path) -> float | None:
    record = path.parent / "comparison.json"
    if not record.is_file():
        return None
    for model in read_comparison(record)["models"]:
        for artefact in model.get("artefacts") or []:
            if artefact["file"] == path.name and artefact.get("top1") is not None:
                return float(artefact["top1"])
    return None
