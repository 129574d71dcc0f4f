"""One table of several runs, from their comparison.json files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError

__all__ = ["collect", "markdown"]


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "comparison.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UserError(f"no comparison.json in {folder}: is it the folder of a finished run?")
    try:
        comparison = json.loads(path.read_text())
        models = comparison["models"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a comparison of bnn-itrd: {error!r}") from error
    if "task" in comparison:
        raise UserError(f"{path} compares networks of another task ({comparison['task']}): they have no row here")
    if not isinstance(models, list):
        raise UserError(f"{path} is not a comparison of bnn-itrd: models is no list")
    return dict(comparison)


def collect(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """A row per trained network, each once: a student's folder also holds its teacher's row.

    Raises UserError on a folder without a comparison.json, or a damaged one.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for folder in folders:
        if not folder.exists():
            raise UserError(f"no comparison.json in {folder}: there is no such folder")
    # A folder without one (the README of results/, say) is passed over when others have it.
    usable = [f for f in folders if f.is_file() or (f / "comparison.json").is_file()] or list(folders)
    for folder in usable:
        comparison = _read(folder)
        data = comparison.get("dataset", {}).get("name", "")
        for model in comparison["models"]:
            key = (data, model["network"], model["name"], model["top1_last"], model.get("bytes"))
            rows.setdefault(
                key,
                {
                    "data": data,
                    "network": model["network"],
                    "method": model["name"],
                    "epochs": model.get("epochs") or "-",
                    "top-1 last %": f"{model['top1_last']:.2f}",
                    "top-1 best %": "-" if model.get("top1_best") is None else f"{model['top1_best']:.2f}",
                    "same as teacher %": "-"
                    if model.get("agreement_with_teacher") is None
                    else f"{model['agreement_with_teacher']:.2f}",
                    "ONNX bytes": f"{model['bytes']:,}",
                    "smaller": "-" if model.get("compression") is None else f"{model['compression']:.1f}x",
                    "ms/image": "-" if model.get("ms_per_image") is None else f"{model['ms_per_image']:.3f}",
                },
            )
    return list(rows.values())


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    if not rows:
        return ""
    head = list(rows[0])
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join([" --- "] * 3 + [" ---: "] * (len(head) - 3)) + "|",
    ]
    lines += ["| " + " | ".join(str(v) for v in row.values()) + " |" for row in rows]
    return "\n".join(lines)
