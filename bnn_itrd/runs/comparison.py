"""Functions that compare all networks of a run, and their exported files, on the same test images."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bnn_itrd.data.normalisation import shown_as_trained
from bnn_itrd.data.splits import ImageData, Split
from bnn_itrd.deploy.agreement import run_split
from bnn_itrd.deploy.bench import time_files
from bnn_itrd.deploy.targets import TARGETS, open_file, write_target
from bnn_itrd.export import ExportError, agreement, traced_once
from bnn_itrd.export.runtimes import environments
from bnn_itrd.models import MODELS
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.member import Member
from bnn_itrd.runs.rows import EvaluatedMember, agreement_row, model_row
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.evaluation import Evaluation, evaluate, has_own_code, kept_evaluation
from bnn_itrd.words import counted

if TYPE_CHECKING:
    import numpy as np

__all__ = ["as_png", "compare_networks", "evaluate_member"]


_MOST_DIFFERENCES = 48
# The files are timed one after the other, 15 times over; fewer times if that takes more than 15 seconds.
_TURNS, _TIMING_SECONDS = 15, 15.0
_FPGA_RECIPES = "see check_fpga, and the recipes fpga-resnet18 and fpga-vgg_small"


def evaluate_member(
    member: Member,
    data: ImageData,
    file: Path,
    *,
    device: torch.device | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> EvaluatedMember:
    """Exports a trained network to all targets, and compares the network with the files on the test images.

    file: the path of its ONNX file; the files of other targets are written beside it. Targets that cannot represent the
    network are listed in the result. The images are normalised as in the network's own training. If the training ended
    with an evaluation on the test images, that is used (a checkpoint keeps it). Otherwise the network is evaluated on
    `device` (None: the CPU). The files run on the CPU with torch's number of threads. tell: a function called with a
    line before each part of the work. Raises ExportError if the network cannot be exported to ONNX.
    """
    data = shown_as_trained(member.model, data)
    test = _evaluation(member, data, device or torch.device("cpu"), tell)
    network_logits, labels = test.logits.numpy(), test.labels.numpy()
    with traced_once():
        write_target("onnx", member.model.cpu(), data, file, member=member.name, checkpoint=member.checkpoint)
        others, missing = _other_targets(member, data, file)
    started = time.perf_counter()
    opened = open_file(file)  # with one thread, for the latency
    session_ms = 1000 * (time.perf_counter() - started)
    tell(f"{member.name}: {file.name} on {counted(len(labels), 'test image')}")
    threads = torch.get_num_threads()
    _, file_logits, _ = run_split(None, opened if threads == 1 else open_file(file, threads=threads), data)
    assert file_logits is not None
    checked = agreement(network_logits, file_logits, labels)
    for row in others:
        tell(f"{member.name}: {row['file']} on the test images")
        row |= _file_row(file.with_name(row["file"]), row["target"], data, network_logits, labels)
    return EvaluatedMember(member, test, file, checked, opened, session_ms, tuple(others), tuple(missing))


def _evaluation(member: Member, data: ImageData, device: torch.device, tell: Callable[[str], None]) -> Evaluation:
    """Returns the evaluation on the test images with which the training ended, or makes one on the device.

    The training is this command's, or the one that wrote the network's checkpoint.
    """
    if member.fitted is not None and data.val is None:
        return member.fitted.final
    if member.fitted is None and member.checkpoint is not None and member.checkpoint.is_file():
        kept = load_checkpoint(member.checkpoint).get("final")
        if (ended := kept_evaluation(kept, member.model, data.test)) is not None:
            return ended
    tell(f"{member.name}: PyTorch on {counted(len(data.test), 'test image')}")
    # A CPU's convolutions are faster in this order of memory, which a user's own code may not take.
    ordered = device.type == "cpu" and member.network in MODELS and not has_own_code(member.model)
    return evaluate(member.model.to(device), data.test, device=device, channels_last=ordered)


def _other_targets(member: Member, data: ImageData, file: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Exports a student to the targets onnx-plain, lce, qonnx and finn; returns (written, failed), one dict per target.

    Of a written file there are target, file and bytes, of a failed target the reason. For a teacher both are empty.
    """
    artefacts: list[dict[str, Any]] = []
    missing: list[dict[str, str]] = []
    if member.method == "teacher":
        return artefacts, missing
    for name in ("onnx-plain", "lce", "qonnx", "finn"):
        reason = _why_not_finn(member, data) if name == "finn" else ""
        path = file.with_name(f"{file.name.removesuffix('.onnx')}{TARGETS[name].suffix}")
        if not reason:
            try:
                write_target(name, member.model, data, path, member=member.name, checkpoint=member.checkpoint)
            except ExportError as error:
                reason = str(error)
        if reason:
            missing.append({"target": name, "reason": reason})
        else:
            artefacts.append({"target": name, "file": path.name, "bytes": path.stat().st_size})
    return artefacts, missing


def _file_row(
    path: Path, target: str, data: ImageData, network_logits: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Runs a file on the test images and returns how it agrees with its network, under the keys of comparison.json.

    network_logits: the network's on the same images, (n, classes). The result is {} if the file's runtime is not
    installed, and has only the key 'error' if the file does not run.
    """
    runtime = TARGETS[target].runtime
    if runtime is not None and environments.find(runtime) is None:
        return {}
    try:
        opened = open_file(path, threads=torch.get_num_threads())
        _, logits, _ = run_split(None, opened, data, limit=TARGETS[target].images)
    except ExportError as error:
        return {"error": str(error)}
    assert logits is not None
    return agreement_row(agreement(network_logits[: len(logits)], logits, labels[: len(logits)]))


def _why_not_finn(member: Member, data: ImageData) -> str:
    """Returns why FINN (a compiler for FPGAs) cannot use the network, as text for the user; "" if it can."""
    from bnn_itrd.export.fpga import check_fpga

    # The usual reason is found here without tracing the network, which takes seconds.
    layers = [m for m in member.model.modules() if isinstance(m, BinaryConv2d)]
    if any(any(layer.padding) and layer.padding_value != -1 for layer in layers):
        return f"FINN cannot map it: its borders are not -1 (padding_value=-1); {_FPGA_RECIPES}"
    try:
        report = check_fpga(member.model, input_shape=data.input_shape)
    except ExportError as error:
        return str(error)
    if report.ok:
        return ""
    return f"FINN cannot map it: {_FPGA_RECIPES}"


def _speed(measured: Sequence[dict[str, Any]], file: Path, compared: bool) -> list[dict[str, Any]]:
    """Returns the timings of one file: a row with the native library and one without it (the form 'stock').

    measured: the result of `time_files`; compared: True: the rows also have the ratios to the teacher's time.
    """
    ratios = ("ratio", "ratio_low", "ratio_high") if compared else ()
    return [
        {"form": row["form"], "ms_per_image": row["ms_per_image"], **{key: row[key] for key in ratios}}
        for row in measured
        if row["file"] == str(file)
    ]


def as_png(split: Split, index: int) -> bytes:
    """Returns one image of a split as the bytes of a PNG file, as an evaluation sees it before the normalisation."""
    from PIL import Image

    pixels = split.raw(index)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _differences(entries: Sequence[EvaluatedMember], data: ImageData) -> list[dict[str, Any]]:
    """Returns test images that the networks do not all put in the same class: at most 48, spread over the test set.

    Each is a dict with index, label, predictions (network's name -> class) and png (base64).
    """
    if not entries:
        return []
    predictions = torch.stack([e.test.predictions for e in entries])
    labels = entries[0].test.labels
    differ = (predictions != predictions[0]).any(0).nonzero().flatten().tolist()
    step = max(1, len(differ) // _MOST_DIFFERENCES)
    return [
        {
            "index": i,
            "label": int(labels[i]),
            "predictions": {e.member.name: int(p[i]) for e, p in zip(entries, predictions, strict=True)},
            "png": base64.b64encode(as_png(data.test, i)).decode(),
        }
        for i in differ[::step][:_MOST_DIFFERENCES]
    ]


def compare_networks(
    members: Sequence[Member],
    data: ImageData,
    *,
    files: dict[str, Path],
    recipe: str,
    environment: dict[str, Any],
    config: dict[str, Any],
    device: torch.device | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Exports, evaluates and times the networks of a run, and returns the content of comparison.json.

    members: the teacher first, then its students. files: network's name -> path of its .onnx file, which is written.
    recipe, environment, config: are copied into the result. device, tell: as in `evaluate_member`. The files' latencies
    are measured one after the other, several times over, in this process. docs/reference/run-folder.md describes the
    result's keys.
    """
    entries = [evaluate_member(m, data, files[m.name], device=device, tell=tell) for m in members]
    tell(f"latency of {counted(len(entries), 'ONNX file')}, each timed in turn")
    teacher = entries[0] if entries and entries[0].member.method == "teacher" else None
    measured = time_files([e.file for e in entries], repeats=_TURNS, budget=_TIMING_SECONDS)
    speeds = {e.member.name: _speed(measured, e.file, teacher is not None) for e in entries}
    return {
        "format": 1,
        "recipe": recipe,
        "dataset": {
            "name": data.name,
            "classes": list(data.classes),
            "train": len(data.train),
            "val": 0 if data.val is None else len(data.val),
            "test": len(data.test),
            "input_shape": list(data.input_shape),
        },
        "environment": environment,
        "models": [model_row(e, data, None if e is teacher else teacher, speeds[e.member.name]) for e in entries],
        "differences": _differences(entries, data),
        "config": config,
    }
