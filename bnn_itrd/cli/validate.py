"""The command ``bnn-itrd validate``, which compares exported files with the network from which they were exported."""

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
    """Runs ``validate FILE... --data ...``, which compares exported files with the network they were exported from.

    Returns 0, or 1 if a file differs from the network by more than the limits, or cannot be used.
    """
    p = parser(
        "bnn-itrd validate",
        "Run exported files, and the network they were exported from, on the test images and compare them. Without the "
        "network, the file's accuracy is compared with the one in comparison.json in its folder. A .tflite runs in "
        "Larq Compute Engine's interpreter and a .qonnx.onnx in qonnx; --setup installs these.",
    )
    p.usage = "bnn-itrd validate FILE... [--checkpoint PATH] [--data NAME] [--data.root ROOT] [--min_agreement PERCENT]"
    p.add_argument("files", nargs="*", help="files written by bnn-itrd")
    p.add_argument(
        "--setup", nargs="+", default=[], metavar="RUNTIME", help="first install the environment of lce, fpga or both"
    )
    p.add_argument(
        "--checkpoint", type=str, default=None, metavar="PATH", help="the network; by default last.pt next to the file"
    )
    add_own_network(p)
    p.add_argument(
        "--min_agreement", type=float, default=None, help="least percent of images with the same class; 99.9 or lce 99"
    )
    p.add_argument(
        "--max_difference", type=float, default=None, help="largest difference allowed in a logit; no limit by default"
    )
    add_threads(p)
    p.add_argument(
        "--images",
        type=int,
        default=None,
        help="number of test images; by default 200 for qonnx, 1000 for onnx-plain, else all",
    )
    p.add_argument("--stock", action="store_true", help="run .onnx files without this package's native library")
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
    """Raises UserError if an option was given that has no effect on any of these files."""
    from bnn_itrd.deploy.targets import target_of

    runtimes = []
    for file in args.files:
        with contextlib.suppress(UserError):  # the same error is raised again where the file is opened
            runtimes.append(target_of(Path(file)).runtime)
    check_pythons(args, runtimes)
    if args.stock and args.files and None not in runtimes:
        raise UserError("--stock is for .onnx files that onnxruntime runs, and none is given: leave it out")


def _set_up(names: Sequence[str], *, quiet: bool) -> None:
    """Installs the environments of runtimes, 'lce' or 'fpga'; quiet: print to standard error, as JSON follows."""
    from bnn_itrd.export.runtimes import environments

    out = sys.stderr if quiet else sys.stdout

    for name in names:
        if name not in environments.RUNTIMES:
            raise unknown("runtime", name, environments.RUNTIMES)
        print(f"{name}: {environments.setup(name, report=lambda line: print(line, file=out))}", file=out)


# The largest number of differing images that are printed for each file.
_SHOWN = 10
# Name of a value, which is a column of the table -> its format.
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
    """Returns a value as text in the format of its column, '-' for None."""
    return "-" if value is None else format(value, _COLUMNS[key])


def _validated(path: Path, args: Any, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Compares one file, as `_validate_one` does, and returns the same.

    If it is one of several files and cannot be used, its error is returned as a failure instead of raised, so that the
    other files are still compared.
    """
    from bnn_itrd.export import ExportError

    try:
        return _validate_one(path, args, given)
    except (UserError, ExportError, FileNotFoundError) as error:
        if len(args.files) == 1:
            raise
        return {"failed": [str(error)]}, []


def _validate_one(path: Path, args: Any, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Compares one file with its network, or with its recorded accuracy; returns (values, lines of text to print).

    args: the parsed options. given: the fields of ``--data.*`` that the user gave.
    """
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
    # The data set is that of the run's config.yaml or, if there is none, of the checkpoint.
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
    """Prints a note if the file was exported from another checkpoint, by the hash in the file's metadata, `known`."""
    from bnn_itrd.files import file_hash

    source = known.get("source_sha256")
    if source and checkpoint.is_file() and file_hash(checkpoint) != source:
        print(f"note: {path} was not exported from {checkpoint} as it is now: their hashes differ", file=sys.stderr)


def _against_network(
    model: Any, opened: OpenFile, data: ImageData, limit: int | None, least: float | None, most: float | None
) -> tuple[dict[str, Any], list[str]]:
    """Compares a file with its network on the same images; returns (values, lines of text about images that differ).

    least: the least percentage of equal classes, None for the target's own. most: the largest difference of a logit
    that is allowed, None for no limit.
    """
    from bnn_itrd.deploy.agreement import compare_split
    from bnn_itrd.deploy.targets import judge
    from bnn_itrd.export import agreement

    compared = compare_split(model, opened, data, limit=limit)
    result = agreement(compared.theirs, compared.ours, compared.labels)
    share = 100 * result.argmax_agreement
    reason = judge(opened.target, share, result.images, result.median_difference, min_agreement=least)
    failed = [reason] if reason else []
    # It is written `not <=` instead of `>`, so that NaN fails too.
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
        f"(PyTorch's two largest logits differ by {d.margin:.2e})"
        for d in result.disagreements[:_SHOWN]
    ]
    if compared.outliers is not None:
        values["outliers"] = [
            {"index": o.image, "difference": o.difference, "differing": o.differing, "layer": o.layer}
            for o in compared.outliers
        ]
        lines += [
            f"image {o.image}: logits differ by {o.difference:.2e}; the first layer with other signs or integers is "
            f"{o.layer or 'none'} ({counted(o.differing, 'value')})"
            for o in compared.outliers[:_SHOWN]
        ]
        if len(compared.outliers) > _SHOWN:
            more = counted(len(compared.outliers) - _SHOWN, "more image")
            lines.append(f"{more} with different logits: --json lists them")
    return values, lines


def _cost(path: Path, python: str | None) -> tuple[dict[str, Any], str]:
    """Returns the inference cost of a QONNX file, which qonnx computes: (values, a line of text).

    python: a Python interpreter with qonnx. The cost is in bit operations (BOPs) and bits of weights.
    """
    from bnn_itrd.export.fpga import inference_cost

    cost = inference_cost(path, python=python)
    line = (
        f"qonnx's inference_cost: {cost['total_bops'] / 1e9:.4g} G bit operations (BOPs), "
        f"{cost['total_mem_w_bits'] / 1e6:.4g} Mbit of weights"
    )
    return dict(cost), line


def _against_record(opened: OpenFile, data: ImageData, limit: int | None) -> tuple[dict[str, Any], list[str]]:
    """Compares a file's top-1 with the one that comparison.json in its folder records; returns (values, lines of text).

    It is used if there is no checkpoint next to the file. A difference above 0.1 % is a failure.
    """
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
    lines = ["there is no checkpoint in the file's folder, so its network was not run: name one with --checkpoint PATH"]
    if known is not None and not whole:
        lines.append("not all test images were used, so the recorded top-1 is shown but not compared")
    return values, lines


def _recorded_top1(path: Path) -> float | None:
    """Returns the top-1 of an exported file in percent, from comparison.json in its folder; None without a record."""
    record = path.parent / "comparison.json"
    if not record.is_file():
        return None
    for model in read_comparison(record)["models"]:
        for artefact in model.get("artefacts") or []:
            if artefact["file"] == path.name and artefact.get("top1") is not None:
                return float(artefact["top1"])
    return None
