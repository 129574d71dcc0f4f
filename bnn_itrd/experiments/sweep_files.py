"""Functions for a sweep's files: result.json of each training, and the tables sweep.json, sweep.md and sweep.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError
from bnn_itrd.experiments.grid import Point
from bnn_itrd.experiments.statistics import method_statistics, table_cells, table_notes
from bnn_itrd.experiments.table import markdown_table
from bnn_itrd.files import write_file, write_json

__all__ = ["point_record", "read_result", "write_sweep"]


def read_result(folder: Path) -> dict[str, Any] | None:
    """Reads result.json from the folder of one training of a sweep; None if it is missing: the training is not done.

    Raises UserError if the file is damaged or of another kind.
    """
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text())
        if isinstance(result["identity"], dict) and isinstance(result["top1"], float):
            return dict(result)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is not the result of a training in a sweep: remove it to train that again")


def point_record(point: Point, state: str, result: dict[str, Any] | None, error: str | None = None) -> dict[str, Any]:
    """Returns the entry of one training in sweep.json.

    state: 'waiting', 'running', 'done' or 'failed'; result: the content of its result.json, None if it is not done;
    error: why it failed.
    """
    known = {} if result is None else result
    teacher = None
    if point.member.needs_teacher:
        teacher = point.config.teacher or f"teachers/{point.teacher}"
    return {
        "name": point.name,
        "row": point.row,
        "student": point.student,
        "fields": {f: v for f, v in point.fields.items() if f != "train.seed"},
        "seed": point.seed,
        "teacher": teacher,
        "state": state,
        "error": error,
        **{key: known.get(key) for key in ("top1", "top5", "loss", "epochs", "seconds")},
    }


def write_sweep(out: Path, records: Sequence[dict[str, Any]], *, recipe: str, reference: str) -> dict[str, Any]:
    """Writes the tables of a sweep, sweep.json, sweep.md and sweep.csv, into `out`; returns the content of sweep.json.

    records: entries of `point_record`; recipe: the recipe's name; reference: the student or row to compare with.
    """
    table = method_statistics(records, reference)
    lines = table_notes(table)
    value = {
        "format": 1,
        "recipe": recipe,
        "reference": reference,
        "points": list(records),
        "table": table,
        "notes": lines,
    }
    write_json(out / "sweep.json", value)
    text = f"{markdown_table(table_cells(table))}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"
    write_file(out / "sweep.md", lambda file: file.write(text.encode()))
    write_file(out / "sweep.csv", lambda file: file.write(_csv(records).encode()))
    return value


def _csv(records: Sequence[dict[str, Any]]) -> str:
    """Returns sweep.csv as text: a line for each training, with a column for each field of the grid."""
    fields = dict.fromkeys(field for record in records for field in record["fields"])
    columns = ["name", "row", "student", *fields, "seed", "state", "top1", "top5", "loss", "epochs", "seconds", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for record in records:
        writer.writerow({**record, **record["fields"]})
    return text.getvalue()
