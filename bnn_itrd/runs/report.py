"""A function that writes the results of a run: exported files, comparison.json, curves.png and report.html."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bnn_itrd.data.splits import ImageData
from bnn_itrd.environment import environment
from bnn_itrd.files import write_file, write_json
from bnn_itrd.report import plot_curves, write_report
from bnn_itrd.runs.comparison import as_png, compare_networks
from bnn_itrd.runs.finished.next_steps import EXAMPLE
from bnn_itrd.runs.member import Member

__all__ = ["report_run"]

# The numbers of channels with which an image can be saved as example.png.
_OF_PICTURES = (1, 3)


def report_run(
    members: Sequence[Member],
    data: ImageData,
    folders: Mapping[str, Path],
    *,
    recipe: str,
    device: torch.device,
    config: dict[str, Any],
    out: Path | None,
    began: float,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Exports and compares trained networks, writes the results, and returns the content of comparison.json.

    folders: network's name -> its folder, into which its exported files, its curves.png, and a comparison.json with it
    and its teacher are written. out: the folder of the whole run, into which comparison.json, curves.png, report.html
    and example.png (the first test image) are written; None: these are not written. recipe, config: the recipe's name
    and the run's settings, for the record. device: where networks are evaluated. began: when the command began, a time
    of `time.monotonic`. tell: a function called with a line before each part of the work.
    """
    files = {}
    for m in members:
        folders[m.name].mkdir(parents=True, exist_ok=True)
        files[m.name] = folders[m.name] / ("teacher.onnx" if m.method == "teacher" else "student.onnx")
    comparison = compare_networks(
        members,
        data,
        files=files,
        recipe=recipe,
        environment=environment(device),
        config=config,
        device=device,
        tell=tell,
    )
    for model in comparison["models"]:
        # This is the environment of the training, which may differ from that of the comparison.
        record = folders[model["name"]] / "environment.json"
        model["trained_on"] = json.loads(record.read_text()) if record.is_file() else None
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    comparison |= {"date": now, "wall_seconds": time.monotonic() - began}
    reference = [m for m in comparison["models"] if m["method"] == "teacher"]
    for model in comparison["models"]:
        folder = folders[model["name"]]
        if model["method"] == "teacher" and not (folder / "last.pt").exists():
            continue
        own = {**comparison, "models": [*(r for r in reference if r is not model), model], "differences": []}
        write_json(folder / "comparison.json", own)
        plot_curves(own, folder / "curves.png")
    if out is not None:
        write_json(out / "comparison.json", comparison)
        plot_curves(comparison, out / "curves.png")
        write_report(comparison, out / "report.html")
        if data.input_shape[0] in _OF_PICTURES:
            write_file(out / EXAMPLE, lambda file: file.write(as_png(data.test, 0)))
    return comparison
