"""Functions that make one table of several runs from their comparison.json, with means over seeds."""

from __future__ import annotations

import html
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError
from bnn_itrd.experiments.papers.published import published_accuracy
from bnn_itrd.runs.comparison_file import read_comparison

__all__ = ["markdown_table", "summarise_runs"]

# The largest difference, in percentage points, between two evaluations of the same teacher on the same images.
_SAME_TEACHER = 0.05


@dataclass(frozen=True)
class _Trained:
    """One trained network of a comparison.json, with what decides to which row of the table it belongs.

    device: that of the training; split: 'val' if the best epoch was chosen on held-out images, else 'test'; last, best:
    top-1 in percent; own: False for a teacher that a student's folder lists only to compare with it; model: its entry
    in the file.
    """

    data: str
    network: str
    method: str
    epochs: int | None
    device: str
    split: str
    seed: int | None
    last: float
    best: float | None
    own: bool
    model: dict[str, Any]

    @property
    def group(self) -> tuple[Any, ...]:
        """Returns what networks of the same row have in common: everything but the seed and the results."""
        return (self.data, self.network, self.method, self.epochs, self.device, self.split)


def _read(folder: Path) -> dict[str, Any]:
    """Returns the content of a folder's comparison.json, or of the file itself. Raises UserError without one."""
    path = folder / "comparison.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UserError(f"no comparison.json in {folder}: is it the folder of a finished run?")
    return read_comparison(path)


def _method(folder: Path, data: str, model: dict[str, Any]) -> str:
    """Returns a network's method, with its variant, as its folder's name tells it; otherwise the network's name.

    Folders are called <data>-<network>-<method>[-<variant>][-e<epochs>][-val][-s<seed>].
    """
    rest = folder.resolve().name.removeprefix(f"{data}-{model['network']}-")
    rest = re.sub(r"(-e\d+)?(-val)?(-s\d+)?$", "", rest)
    same = rest == model["name"] or rest.startswith(f"{model['name']}-")
    return rest if same else str(model["name"])


def _device(model: dict[str, Any]) -> str:
    """Returns the device on which a network was trained, as text."""
    device = (model.get("trained_on") or {}).get("device")
    if device is None:
        return "-"
    return "CPU" if device == "cpu" else f"GPU ({device})"


def _epochs(model: dict[str, Any], config: dict[str, Any], *, is_teacher: bool) -> int | None:
    """Returns for how many epochs a network was trained; None if it is not recorded.

    In two-stage training ``model["epochs"]`` counts the second stage only, so the first stage's epochs are added.
    """
    epochs: int | None = model.get("epochs")
    first = 0 if is_teacher else (config.get("scheme") or {}).get("first_stage_epochs") or 0
    return None if epochs is None else epochs + first


def _trained(folder: Path, comparison: dict[str, Any]) -> list[_Trained]:
    """Returns the networks of a comparison; folder: where it was found, whose name may tell the method."""
    data = (comparison.get("dataset") or {}).get("name") or ""
    config = comparison.get("config") or {}
    models = comparison["models"]
    result = []
    for i, model in enumerate(models):
        own = i == len(models) - 1 or len(models) > 2
        is_teacher = (model.get("method") or model["name"]) == "teacher"
        training = (
            {} if is_teacher and config.get("teacher") else config.get("teacher_train" if is_teacher else "train")
        )
        last, best = model["top1_last"], model.get("top1_best")
        split = model.get("best_split") or "test"
        if split == "val":
            # The accuracy on held-out images is shown, because settings are chosen by it and not by the test accuracy.
            last = model["curve"][-1]["test_top1"]
        result.append(
            _Trained(
                data=data,
                network=model["network"],
                method=_method(folder, data, model) if own and len(models) <= 2 else model["name"],
                epochs=_epochs(model, config, is_teacher=is_teacher),
                device=_device(model),
                split=split,
                seed=(training or {}).get("seed"),
                last=last,
                best=best,
                own=own,
                model=model,
            )
        )
    return result


def _mean_and_deviation(values: Sequence[float | None], form: str = "{:.2f}") -> str:
    """Returns "mean ± sample standard deviation" as text; for one value only that, and '-' if a value is None."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    mean = form.format(statistics.fmean(known))
    return mean if len(known) == 1 else f"{mean} ± {form.format(statistics.stdev(known))}"


def _mean(values: Sequence[float | None], form: str) -> str:
    """Returns the mean as text, '-' if a value is None."""
    return _mean_and_deviation(values, form).partition(" ")[0]


def _row(group: Sequence[_Trained]) -> dict[str, Any]:
    """Returns the table's row for networks that differ only in their seeds: column -> value."""
    first = group[0]
    seeds = ", ".join("?" if t.seed is None else str(t.seed) for t in group)
    models = [t.model for t in group]
    return {
        "data": first.data,
        "network": first.network,
        "method": first.method,
        "epochs": first.epochs or "-",
        "device": first.device,
        "seeds": f"one ({seeds})" if len(group) == 1 else seeds,
        "images": "held out" if first.split == "val" else "test",
        "top-1 last %": _mean_and_deviation([t.last for t in group]),
        "top-1 best %": _mean_and_deviation([t.best for t in group]),
        "published %": published_accuracy(first.data, first.network, first.method),
        "same as teacher %": _mean_and_deviation([m.get("agreement_with_teacher") for m in models]),
        "ONNX bytes": _mean([m["bytes"] for m in models], "{:,.0f}"),
        "smaller": "-" if models[0].get("compression") is None else f"{models[0]['compression']:.1f}x",
        "ms/image": _mean([m.get("ms_per_image") for m in models], "{:.3f}"),
    }


def summarise_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the rows of a table of several runs: one for each method, network, number of epochs and device.

    folders: of runs or of single networks, or their comparison.json. A row (column -> value) has means and sample
    standard deviations over the seeds. Every trained network counts once, although a student's folder also lists its
    teacher. Networks that were trained with held-out images (data.val_fraction) get separate rows, with the accuracy on
    those images. Raises UserError if a comparison.json is missing or damaged.
    """
    for folder in folders:
        if not folder.exists():
            raise UserError(f"no comparison.json in {folder}: there is no such folder")
    # Paths without a comparison.json (such as results/README.md) are skipped if others have one.
    usable = [f for f in folders if f.suffix == ".json" or (f / "comparison.json").is_file()] or list(folders)
    trained = []
    for folder in usable:
        trained += _trained(folder, _read(folder))
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], _Trained]] = {}
    for one in trained:
        if not one.own:
            one = _own_folder(one, trained)
        key = (one.seed, one.last, one.model.get("bytes"))
        groups.setdefault(one.group, {}).setdefault(key, one)
    return [_row(list(group.values())) for group in groups.values()]


def _own_folder(reference: _Trained, trained: Sequence[_Trained]) -> _Trained:
    """Returns the same teacher as read from its own folder, which records more; `reference` if that is not given.

    reference: a teacher that a student's folder lists. Its own folder's name may tell a variant, as in
    teacher-cutout, which the student's folder does not know.
    """
    for one in trained:
        same = (one.data, one.network, one.model["name"]) == (reference.data, reference.network, reference.method)
        if same and one.own and abs(one.model["top1_last"] - reference.model["top1_last"]) <= _SAME_TEACHER:
            return one
    return reference


def _markdown_cell(value: object) -> str:
    """Returns a value as text on one line, escaped so that Markdown and HTML show it as it is."""
    text = " ".join(html.escape(str(value), quote=False).split())
    return re.sub(r"([\\`*|\[\]])", r"\\\1", text)


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows (column -> value, the same columns in each) as a Markdown table; "" without rows.

    The first three columns are aligned to the left. Values are escaped for Markdown and HTML.

    >>> print(markdown_table([{"method": "kd", "seeds": 3, "top-1 %": 72.9, "bytes": 70}]))
    | method | seeds | top-1 % | bytes |
    | --- | --- | --- | ---: |
    | kd | 3 | 72.9 | 70 |
    """
    if not rows:
        return ""
    head = list(rows[0])
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join([" --- "] * 3 + [" ---: "] * (len(head) - 3)) + "|",
    ]
    lines += ["| " + " | ".join(map(_markdown_cell, row.values())) + " |" for row in rows]
    return "\n".join(lines)
