"""Functions that read comparison.json and check its fields, which docs/reference/run-folder.md describes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError

__all__ = ["best_of_run", "best_student", "read_comparison"]

# The fields of the file, of its `dataset`, of its `config`, and so on, as field -> type. A field whose type ends with
# "?" may be null or missing.
_TOP = {"models": "list", "dataset": "object?", "config": "object?"}
_DATASET = {"name": "text?"}
_CONFIG = {"scheme": "object?", "train": "object?", "teacher_train": "object?"}
_SCHEME = {"first_stage_epochs": "whole number?"}
_TRAINING = {"seed": "whole number?"}
_MODEL = {
    "name": "text",
    "network": "text",
    "method": "text?",
    "epochs": "whole number?",
    "top1_last": "number",
    "top1_best": "number?",
    "best_split": "text?",
    "bytes": "number",
    "compression": "number?",
    "ms_per_image": "number?",
    "agreement_with_teacher": "number?",
    "trained_on": "object?",
    "curve": "list?",
    "artefacts": "list?",
}
_TRAINED_ON = {"device": "text?"}
_CURVE = {"test_top1": "number?"}
_ARTEFACT = {"file": "text", "top1": "number?"}


def best_student(models: Sequence[Mapping[str, Any]]) -> str:
    """Returns the name of the student with the highest top-1 after its last epoch.

    models: the entries of `models` in comparison.json, at least one; if none is a student, all are considered.

    >>> rows = [("teacher", "teacher", 99.0), ("recu", "recu", 96.0), ("recu-kd", "recu-kd", 97.0)]
    >>> best_student([dict(zip(("name", "method", "top1_last"), row)) for row in rows])
    'recu-kd'
    """
    students = [model for model in models if (model.get("method") or model["name"]) != "teacher"] or models
    return str(max(students, key=lambda model: model["top1_last"])["name"])


def best_of_run(run: Path, names: Collection[str], *, say: Callable[[str], None]) -> str | None:
    """Returns the name of the network to use for a command that was given a run's folder with several networks.

    names: the networks to choose from. It is the one that `best_student` chooses, by the run's comparison.json; None if
    there is no such file, or it has none of the names. say: a function called with a line that names the choice.
    """
    record = run / "comparison.json"
    rows = read_comparison(record)["models"] if record.is_file() else []
    known = {row["name"]: row for row in rows if row["name"] in names}
    if not known:
        return None
    best = best_student(list(known.values()))
    top1 = known[best]["top1_last"]
    why = "" if best == "teacher" else f", the student with the highest top-1 ({top1:.2f} %)"
    say(f"{run} holds {', '.join(names)}: {best} is used{why}")
    return best


def _is_number(value: object) -> bool:
    """Returns whether a value is a finite number in the range of floats."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


_KINDS = {
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "text": lambda value: isinstance(value, str),
    "number": _is_number,
    "whole number": lambda value: _is_number(value) and isinstance(value, int),
}


def _check(value: object, fields: Mapping[str, str], path: Path, place: str) -> None:
    """Raises UserError, naming the field, unless a value of the file is a JSON object with the given fields.

    value: the value; fields: field -> type; path: the file; place: where the value is in it (``models[0]``).
    """
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a comparison of bnn-itrd: {place or 'its content'} must be an object")
    for name, kind in fields.items():
        found, optional = value.get(name), kind.endswith("?")
        if found is None and optional:
            continue
        where = f"{place}.{name}" if place else name
        if name not in value:
            raise UserError(f"{path} is not a comparison of bnn-itrd: {where} is missing")
        if not _KINDS[kind.rstrip("?")](found):
            shown = repr(found) if len(repr(found)) <= 40 else f"{repr(found)[:40]}..."
            a = "an" if kind.startswith("object") else "a"
            kind = kind.rstrip("?")
            raise UserError(f"{path} is not a comparison of bnn-itrd: {where} must be {a} {kind}, got {shown}")


def read_comparison(path: Path) -> dict[str, Any]:
    """Reads a run's comparison.json, checks the fields that this package uses, and returns its content.

    Raises UserError, naming the file and the field, if it is not JSON, or a field is missing or of a wrong type.
    """
    try:
        comparison = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a comparison of bnn-itrd: it cannot be read as JSON: {error}") from error
    if isinstance(comparison, dict) and "task" in comparison:
        raise UserError(
            f"{path} compares networks of another task ({comparison['task']}), which this command cannot show"
        )
    _check(comparison, _TOP, path, "")
    for name, fields in (("dataset", _DATASET), ("config", _CONFIG)):
        _check(comparison.get(name) or {}, fields, path, name)
    config = comparison.get("config") or {}
    _check(config.get("scheme") or {}, _SCHEME, path, "config.scheme")
    for name in ("train", "teacher_train"):
        _check(config.get(name) or {}, _TRAINING, path, f"config.{name}")
    for i, model in enumerate(comparison["models"]):
        place = f"models[{i}]"
        _check(model, _MODEL, path, place)
        _check(model.get("trained_on") or {}, _TRAINED_ON, path, f"{place}.trained_on")
        for name, fields in (("curve", _CURVE), ("artefacts", _ARTEFACT)):
            for k, entry in enumerate(model.get(name) or []):
                _check(entry, fields, path, f"{place}.{name}[{k}]")
        if model.get("best_split") == "val" and not (model.get("curve") and "test_top1" in model["curve"][-1]):
            raise UserError(f"{path} is not a comparison of bnn-itrd: {place}.curve has no accuracy of its last epoch")
    return comparison
