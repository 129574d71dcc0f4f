"""One table of several runs, from their comparison.json: a row per network and method, with means over seeds."""

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

# The accuracy in points by which two evaluations of one teacher, with different students, may differ.
_SAME_TEACHER = 0.05


@dataclass(frozen=True)
class _Trained:
    """One trained network; own: its own folder or its run's was given, False if it is only a student's reference."""

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
        return (self.data, self.network, self.method, self.epochs, self.device, self.split)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "comparison.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UserError(f"no comparison.json in {folder}: is it the folder of a finished run?")
    return read_comparison(path)


def _method(folder: Path, data: str, model: dict[str, Any]) -> str:
    """Returns the method, from a folder's name <data>-<network>-<method>[-<variant>][-e<epochs>][-val][-s<seed>]."""
    rest = folder.resolve().name.removeprefix(f"{data}-{model['network']}-")
    rest = re.sub(r"(-e\d+)?(-val)?(-s\d+)?$", "", rest)
    same = rest == model["name"] or rest.startswith(f"{model['name']}-")
    return rest if same else str(model["name"])


def _device(model: dict[str, Any]) -> str:
    device = (model.get("trained_on") or {}).get("device")
    if device is None:
        return "-"
    return "CPU" if device == "cpu" else f"GPU ({device})"


def _epochs(model: dict[str, Any], config: dict[str, Any], *, is_teacher: bool) -> int | None:
    """Returns the number of epochs, including those of a first stage, which the curve does not have."""
    epochs: int | None = model.get("epochs")
    first = 0 if is_teacher else (config.get("scheme") or {}).get("first_stage_epochs") or 0
    return None if epochs is None else epochs + first


def _trained(folder: Path, comparison: dict[str, Any]) -> list[_Trained]:
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
            # Settings are chosen on the held-out images, before anyone looks at the test accuracy.
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
    """Returns mean and sample standard deviation as text; a single value alone, or '-' if one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    mean = form.format(statistics.fmean(known))
    return mean if len(known) == 1 else f"{mean} ± {form.format(statistics.stdev(known))}"


def _mean(values: Sequence[float | None], form: str) -> str:
    return _mean_and_deviation(values, form).partition(" ")[0]


def _row(group: Sequence[_Trained]) -> dict[str, Any]:
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
    """Summarises runs: a row per method, network, epochs and device, with mean ± sample deviation over its seeds.

    Every trained network counts once, although a student's folder also has its teacher's numbers. The last epoch comes
    before the best, which was chosen on the same images. Networks trained with held-out images (data.val_fraction) have
    rows of their own, with the accuracy on those. Raises UserError on a folder without a comparison.json, or with a
    damaged one.
    """
    for folder in folders:
        if not folder.exists():
            raise UserError(f"no comparison.json in {folder}: there is no such folder")
    # Paths without one (such as the README of results/) are skipped if others have one.
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
    """Returns the same teacher from a folder of its own, which records more; the reference if none was given."""
    for one in trained:
        same = (one.data, one.network, one.method) == (reference.data, reference.network, reference.method)
        if same and one.own and abs(one.model["top1_last"] - reference.model["top1_last"]) <= _SAME_TEACHER:
            return one
    return reference


def _markdown_cell(value: object) -> str:
    """Returns a value for a cell, escaped so that Markdown and HTML read it as plain text."""
    text = " ".join(html.escape(str(value), quote=False).split())
    return re.sub(r"([\\`*|\[\]])", r"\\\1", text)


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows of the same keys as a Markdown table, with values escaped for Markdown and HTML.

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
