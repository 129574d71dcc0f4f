"""Functions that make the entries of comparison.json, and the rows of the table that a run prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_itrd.data.splits import ImageData
from bnn_itrd.deploy.targets import OpenFile
from bnn_itrd.export import Agreement, uses_native
from bnn_itrd.models import summary
from bnn_itrd.runs.member import Member
from bnn_itrd.training.evaluation import Evaluation, confusion

__all__ = ["EvaluatedMember", "agreement_row", "model_row", "table_rows"]

_MS_WHAT = {
    "native": "onnxruntime with the native library, 1 thread, batch 1",
    "stock": "stock onnxruntime, 1 thread, batch 1",
}


@dataclass(frozen=True)
class EvaluatedMember:
    """A trained network with the results of its evaluation and of its exported files.

    test: its evaluation on the test images; file: its ONNX file; agreement: how the file agrees with the network;
    opened: the file, loaded in onnxruntime; session_ms: the milliseconds that loading took; others: a dict for each
    other exported file; not_exported: dicts with the targets that cannot represent it and the reasons.
    """

    member: Member
    test: Evaluation
    file: Path
    agreement: Agreement
    opened: OpenFile
    session_ms: float
    others: tuple[dict[str, Any], ...]
    not_exported: tuple[dict[str, str], ...]


def agreement_row(result: Agreement) -> dict[str, Any]:
    """Returns how an exported file agrees with its network, under the keys of comparison.json; shares in percent."""
    return {
        "top1": None if result.top1_file is None else 100 * result.top1_file,
        "agreement": 100 * result.argmax_agreement,
        "max_difference": result.max_difference,
        "median_difference": result.median_difference,
        "images": result.images,
        "disagreements": [
            {"index": d.image, "torch": d.model_class, "file": d.file_class, "margin": d.margin}
            for d in result.disagreements
        ],
    }


def model_row(
    entry: EvaluatedMember, data: ImageData, teacher: EvaluatedMember | None, speed: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns the entry of one network in comparison.json, whose keys docs/reference/run-folder.md describes.

    Accuracies are in percent, times in milliseconds, sizes in bytes. teacher: the network to compare with, or None.
    speed: the latencies of its ONNX file: a dict with the native library, if it was used, and one without.
    """
    member, test = entry.member, entry.test
    cost = summary(member.model, data.input_shape)
    classes = len(data.classes)
    matrix = confusion(test.predictions, test.labels, classes)
    per_class = 100 * matrix.diag() / matrix.sum(1).clamp(min=1)
    history = [] if member.fitted is None else member.fitted.history
    best = None if member.fitted is None else member.fitted.best
    size = entry.file.stat().st_size
    agrees = None if teacher is None else 100 * float((teacher.test.predictions == test.predictions).float().mean())
    compression = 1.0 if member.method == "teacher" else None
    if teacher is not None:
        compression = teacher.file.stat().st_size / size
    return {
        "name": member.name,
        "network": member.network,
        "method": member.method,
        "binary": cost.binary_macs > 0,
        "reference": None if teacher is None else "teacher",
        "epochs": len(history) or None,
        "top1_last": test.top1,
        "top1_best": None if best is None else best["top1"],
        "best_epoch": None if best is None else best["epoch"],
        "best_split": None if best is None else best["split"],
        "top5_last": test.top5,
        "loss_last": test.loss,
        "parameters": cost.parameters,
        "bytes": size,
        "fp32_bytes": cost.fp32_bytes,
        "compression": compression,
        "binary_macs": cost.binary_macs,
        "float_macs": cost.float_macs,
        "ms_per_image": speed[0]["ms_per_image"],
        "ms_what": _MS_WHAT[speed[0]["form"]],
        "speed": speed,
        "agreement_with_teacher": agrees,
        "per_class": [round(float(v), 4) for v in per_class],
        "confusion": matrix.tolist(),
        "curve": [_curve_point(row) for row in history],
        "artefacts": [
            {
                "target": "onnx",
                "file": entry.file.name,
                "bytes": size,
                **agreement_row(entry.agreement),
                "ms_per_image": speed[0]["ms_per_image"],
                "session_ms": entry.session_ms,
                "native": entry.opened.session is not None and uses_native(entry.opened.session),
            },
            *entry.others,
        ],
        "not_exported": list(entry.not_exported),
    }


def _curve_point(row: dict[str, Any]) -> dict[str, Any]:
    """Returns an epoch of the training, a row of metrics.csv, under the keys of comparison.json."""
    parts = {k.removeprefix("loss_"): v for k, v in row.items() if k.startswith("loss_")}
    watched = {k: v for k, v in row.items() if "." in k}  # numbers that distillers report, such as ``itrd.corr``
    split = row["split"]
    return {
        "epoch": row["epoch"],
        "loss": row["loss"],
        "train_loss_parts": parts,
        "train_top1": row["train_top1"],
        "split": split,
        "test_top1": row["top1"],
        "test_top5": row["top5"],
        "test_loss": row["eval_loss"],
        "lr": row["lr"],
        "seconds": row["seconds"],
        "images_per_s": row["images_per_s"],
        **({"watched": watched} if watched else {}),
    }


def table_rows(comparison: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the rows of the table that a run prints, one for each network of a comparison: column -> text."""

    def cell(value: Any, form: str) -> str:
        return "-" if value is None else format(value, form)

    rows = []
    for model in comparison["models"]:
        artefact = (model.get("artefacts") or [{}])[0]
        rows.append(
            {
                "model": model["name"],
                "top-1 %": cell(model.get("top1_last"), ".2f"),
                "best %": cell(model.get("top1_best"), ".2f"),
                "top-5 %": cell(model.get("top5_last"), ".2f"),
                "parameters": cell(model.get("parameters"), ","),
                "binary MACs": cell(model.get("binary_macs"), ","),
                "float MACs": cell(model.get("float_macs"), ","),
                "ONNX bytes": cell(model.get("bytes"), ","),
                "smaller": cell(model.get("compression"), ".1f") + "x" if model.get("compression") else "-",
                "ms/image": cell(model.get("ms_per_image"), ".3f"),
                "same as teacher %": cell(model.get("agreement_with_teacher"), ".2f"),
                "ONNX = PyTorch %": cell(artefact.get("agreement"), ".2f"),
            }
        )
    return rows
