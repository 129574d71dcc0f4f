"""The content of a comparison.json, and a parser of report pages, for the tests of the report."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from bnn_itrd.report import write_report

VOID = {"meta", "img", "br"}


def png(size: int = 8) -> str:
    buffer = io.BytesIO()
    Image.new("L", (size, size), 128).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def model(name: str, top1: float, size: int, classes: int = 3, **changes: Any) -> dict[str, Any]:
    confusion = [[10 if i == j else int(j == (i + 1) % classes) for j in range(classes)] for i in range(classes)]
    return {
        "name": name,
        "network": "resnet20",
        "method": name,
        "binary": True,
        "reference": "teacher",
        "epochs": 3,
        "top1_last": top1,
        "top1_best": top1 + 0.25,
        "best_epoch": 2,
        "top5_last": 99.5,
        "parameters": 269434,
        "bytes": size,
        "binary_macs": 40_000_000,
        "float_macs": 2_500_000,
        "compression": 28.1,
        "ms_per_image": 0.0625,
        "ms_what": "onnxruntime, 1 thread",
        "agreement_with_teacher": 98.13,
        "per_class": [top1] * classes,
        "confusion": confusion,
        "curve": [
            {
                "epoch": epoch,
                "loss": 2.0 / epoch,
                "train_loss_parts": {"ce": 1.0 / epoch, "itrd": 0.5 / epoch},
                "test_top1": value,
                "test_loss": 1.5 / epoch,
                "seconds": 2.0,
            }
            for epoch, value in enumerate((top1 - 40, top1 + 0.25, top1), 1)
        ],
        "artefacts": [],
        **changes,
    }


def comparison(classes: int = 3) -> dict[str, Any]:
    names = [f"class{i}" for i in range(classes)]
    teacher = model("teacher", 98.9, 1_077_736, classes, reference=None, binary=False, ms_per_image=0.9)
    teacher |= {"binary_macs": 0, "compression": 1.0, "agreement_with_teacher": None}
    teacher["artefacts"] = [{"target": "onnx", "file": "teacher.onnx", "agreement": 100.0, "native": False}]
    student = model("recu-itrd", 97.2, 38_491, classes, per_class=[97.2 - i for i in range(classes)])
    student["artefacts"] = [
        {
            "target": "onnx",
            "file": "student.onnx",
            "bytes": 51_234,
            "top1": 97.2,
            "agreement": 100.0,
            "max_difference": 2e-6,
            "median_difference": 3e-7,
            "images": 360,
            "disagreements": [],
            "ms_per_image": 0.1,
            "session_ms": 80.0,
            "native": True,
        },
        {
            "target": "lce",
            "file": "student.tflite",
            "bytes": 40_000,
            "top1": 96.9,
            "agreement": 100 * 359 / 360,
            "max_difference": 0.0,
            "images": 360,
            "disagreements": [{"index": 17, "torch": 2, "file": 1, "margin": 1e-6}],
        },
    ]
    return {
        "format": 1,
        "recipe": "digits",
        "dataset": {"name": "digits", "classes": names, "train": 1437, "test": 360, "input_shape": [1, 8, 8]},
        "environment": {"python": "3.11.7", "commit": None},
        "models": [teacher, model("recu", 95.8, 38_491, classes, reference=None), student],
        "differences": [
            {"index": 12, "label": 2, "predictions": {"teacher": 2, "recu": 1, "recu-itrd": 2}, "png": png()}
        ],
        "config": {"optimizer": {"name": "sgd", "lr": 0.1}},
    }


class Page(HTMLParser):
    """A parsed HTML page: its text by section, its table rows, tags and attributes; wrong nesting fails the test."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.section = ""
        self.text: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in values.items()]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("section", "header"):
            self.section = values["id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        data = data.replace("\u00a0", " ")
        self.text[self.section] = self.text.get(self.section, "") + data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data if "small" not in self.open else f" [{data}]"

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row[0].startswith(name))


def written(data: dict[str, Any], tmp_path: Path) -> Page:
    path = write_report(data, tmp_path / "report.html")
    return Page(path.read_text(encoding="utf-8"))
