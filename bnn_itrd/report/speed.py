"""The speed of the exported files, compared with that of the teacher's file.

A file can be timed in two forms: "native" is with this package's compiled library, "stock" is in onnxruntime alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from bnn_itrd.plots import number
from bnn_itrd.report.formats import DASH, as_milliseconds, in_times
from bnn_itrd.report.markup import table
from bnn_itrd.report.view import View

__all__ = ["FORMS", "Speed", "speed_in_words", "speed_part", "speeds", "untimed"]

FORMS = {"native": "with the native library", "stock": "in stock onnxruntime", "": ""}


@dataclass(frozen=True)
class Speed:
    """The speed of a network's ONNX file in one form.

    Args:
        form: "native" (with this package's compiled library), "stock" (in onnxruntime alone), or "" if not recorded
        milliseconds: time for an image
        times: the teacher's time divided by this one; None if the teacher was not timed
        low, high: 10 % and 90 % quantiles of `times` over repeated measurements; None if they were not recorded
    """

    form: str
    milliseconds: float
    times: float | None
    low: float | None
    high: float | None

    @property
    def spread(self) -> str:
        return "" if self.low is None or self.high is None else f"{in_times(self.low)} to {in_times(self.high)}"


def speeds(view: View, model: dict[str, Any]) -> list[Speed]:
    """Returns the speeds of a network's ONNX file, one for each form (native, stock) in which it was timed.

    An older comparison.json has a single time, which becomes one `Speed` without quantiles.
    """
    teacher = view.teacher(model)
    found = []
    for row in model.get("speed") or []:
        ms, form = number(row.get("ms_per_image")), str(row.get("form"))
        if ms is not None and form in FORMS:
            ratios = [number(row.get(key)) if teacher else None for key in ("ratio", "ratio_low", "ratio_high")]
            found.append(Speed(form, ms, *ratios))
    ms = number(model.get("ms_per_image"))
    if found or ms is None:
        return found
    native = [a["native"] for a in model.get("artefacts") or [] if isinstance(a.get("native"), bool)]
    theirs = number((teacher or {}).get("ms_per_image"))
    times = theirs / ms if theirs and ms else None
    return [Speed("" if not native else "native" if native[0] else "stock", ms, times, None, None)]


def speed_in_words(view: View, model: dict[str, Any]) -> str:
    """Returns a student's speed in words: "2.6 times as fast as its teacher with the native library (2.4 to 2.8)".

    If it was also timed in stock onnxruntime, without that library, a second part follows. The result is "" if the
    teacher or the student was not timed.
    """
    parts: list[str] = []
    for speed in speeds(view, model):
        if speed.times is None:
            continue
        slower = ["slower"] if speed.times < 0.95 else []
        notes = "; ".join(slower + ([speed.spread] if speed.spread else []))
        first = "" if parts else " as fast as its teacher"
        text = f"{in_times(speed.times)} times{first} {FORMS[speed.form]}".strip()
        parts.append(text + (f" ({notes})" if notes else ""))
    return ", ".join(parts)


def untimed(view: View, model: dict[str, Any]) -> tuple[str, str] | None:
    """Returns in which form a binary student was not timed, and why, as two texts.

    It is None if the student was timed in both forms (with the native library, in stock onnxruntime), or in none.
    """
    forms = [speed.form for speed in speeds(view, model)]
    if not model.get("binary") or len(forms) != 1 or not forms[0]:
        return None
    if forms == ["native"]:
        return FORMS["stock"], "the run timed files only with the native library"
    why = "the library was missing: bnn-itrd-runtime info says why, docs/reference/native.md what it needs"
    return FORMS["native"], why


def speed_part(view: View) -> str:
    """Returns a sentence about each student's speed and a table of all speeds as HTML; "" if nothing was timed."""
    items = [
        f"<li>{view.swatch(model)}: {words}.</li>" for model in view.students if (words := speed_in_words(view, model))
    ]
    rows = [
        (
            f"{view.swatch(model)}<small>{FORMS[speed.form]}</small>",
            as_milliseconds(speed.milliseconds),
            DASH if speed.times is None else f"<b>{in_times(speed.times)}</b><small>{speed.spread}</small>",
        )
        for model in view.models
        for speed in speeds(view, model)
    ]
    if not rows:
        return ""
    html = "<h3>Speed against the teacher</h3>"
    html += f'<ul class="speeds">{"".join(items)}</ul>' if items else ""
    html += table(("Network", "ms per<br>image", "Times as fast<br>as its teacher"), rows)
    notes = ["The files were timed in turns, in one process, with one thread and one image at a time."]
    if cpu := (view.raw.get("environment") or {}).get("cpu"):
        notes[0] = f"{notes[0][:-1]}, on {escape(str(cpu))}."
    if any(speed.spread for model in view.models for speed in speeds(view, model)):
        notes.append("Eight of ten measurements lie in the small ranges.")
    elif items:
        notes.append("How much they vary was not recorded.")
    return html + f'<p class="note">{" ".join(notes)}</p>'
