"""The head of the report: a headline, and boxes (tiles) with the most important numbers."""

from __future__ import annotations

from html import escape
from typing import Any

from bnn_itrd.plots import model_name, number
from bnn_itrd.report.formats import as_bytes, as_milliseconds, as_percent, as_signed, as_times, fixed, in_times
from bnn_itrd.report.interval import interval_range
from bnn_itrd.report.moment import moment_of
from bnn_itrd.report.speed import FORMS, speeds
from bnn_itrd.report.view import View, model_top1, points_above, size_ratio
from bnn_itrd.words import counted

__all__ = ["headline", "page_head"]


def headline(comparison: dict[str, Any]) -> str:
    """Returns the result of a run's best student as one line of text; `comparison` is the content of comparison.json.

    For example: "Student recu, distilled (ITRD): 97.2 % top-1, 1.1 points below its teacher, 28x smaller".

    >>> headline({"models": [{"name": "recu", "top1_last": 97.24}]})
    'Model recu: 97.2 % top-1'
    """
    view = View.of(comparison)
    model = view.best
    if model is None:
        return "No models to compare"
    top1, teacher = model_top1(model), view.teacher(model)
    text = f"{'Model' if teacher is None else 'Student'} {model_name(model)}"
    kind = "" if teacher is None else view.kind(model)
    text += f", {kind}: " if kind else ": "
    text += "accuracy not measured" if top1 is None else f"{fixed(top1, 1)} % top-1"
    if teacher is not None:
        gap, ratio = points_above(model, teacher), size_ratio(teacher, model)
        if gap is not None:
            if abs(gap) < 0.05:
                text += ", level with its teacher"
            else:
                text += f", {abs(gap):.1f} points {'above' if gap > 0 else 'below'} its teacher"
        if ratio is not None and ratio > 1.05:
            text += f", {as_times(ratio)} smaller"
    return text


def page_head(view: View, title: str) -> str:
    """Returns the head of the report as HTML: recipe and data, the title, and boxes with the important numbers."""
    recipe, dataset = view.raw.get("recipe"), view.raw.get("dataset") or {}
    over = ["bnn_itrd"] + [escape(str(name)) for name in dict.fromkeys((recipe, dataset.get("name"))) if name]
    facts = []
    if view.images:
        facts.append(counted(view.images, "test image"))
    if number(dataset.get("train")):
        facts.append(f"{dataset['train']:,} for training")
    if view.classes:
        facts.append(counted(len(view.classes), "class", "classes"))
    if shape := dataset.get("input_shape"):
        facts.append("input&nbsp;" + "&nbsp;&times;&nbsp;".join(escape(str(side)) for side in shape))
    # Keep a number and its unit on one line.
    heading = escape(title).replace(" %", "&nbsp;%").replace(" points", "&nbsp;points")
    heading = heading.replace("top-1", '<span class="range">top-1</span>')
    html = f'<p class="over">{" / ".join(over)}</p><h1>{heading}</h1>'
    html += "".join(f'<p class="facts">{line}</p>' for line in (" &middot; ".join(facts), moment_of(view)) if line)
    tiles = "".join(
        f'<div class="tile"><span>{name}</span><strong>{value}</strong><small>{note}</small></div>'
        for name, value, note in _tiles(view)
    )
    return html + f'<div class="tiles">{tiles}</div>'


def _tiles(view: View) -> list[tuple[str, str, str]]:
    """Returns the most important numbers of the best student, as (name, value, note) in HTML."""
    model = view.best
    if model is None:
        return []
    teacher, top1 = view.teacher(model), model_top1(model)
    tiles = []
    if top1 is not None:
        interval = interval_range(top1, view.images)
        note = f"95 % interval {interval}" if interval else ""
        tiles.append(("Top-1 accuracy", f"{as_percent(top1)} <em>%</em>", note))
    if points_above(model, teacher) is not None and teacher is not None:
        note = f"{escape(model_name(teacher))}: {as_percent(model_top1(teacher))} %"
        tiles.append(("Against its teacher", f"{as_signed(points_above(model, teacher))} <em>points</em>", note))
    if number(model.get("bytes")) is not None:
        ratio = None if teacher is None else size_ratio(teacher, model)
        note = "" if ratio is None else f"teacher: {as_bytes(teacher and teacher.get('bytes'))}, {as_times(ratio)}"
        tiles.append(("Size of the ONNX file", as_bytes(model["bytes"]), note))
    if number(model.get("agreement_with_teacher")) is not None:
        value = f"{as_percent(model['agreement_with_teacher'])} <em>%</em>"
        tiles.append(("Agrees with its teacher", value, "of the test images get the same answer"))
    tiles += _speed_tile(view, model)
    artefacts = [artefact for m in view.models for artefact in m.get("artefacts") or []]
    if artefacts:
        same = sum(number(artefact.get("agreement")) == 100 for artefact in artefacts)
        unchecked = sum(not a.get("error") and number(a.get("agreement")) is None for a in artefacts)
        note = "give PyTorch's answer on every image" + (f", {unchecked} not checked" if unchecked else "")
        tiles.append(("Exported files", f"{same} of {len(artefacts)}", note))
    return tiles


def _speed_tile(view: View, model: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (name, value, note) of a network's speed compared with its teacher, or of its time without a teacher.

    The list has one entry, or none if the network was not timed.
    """
    found = speeds(view, model)
    if not found:
        return []
    first, ms = found[0], f"{as_milliseconds(found[0].milliseconds)} ms an image"
    if first.times is None:
        note = escape(str(model.get("ms_what") or ""))
        return [("Time per image", f"{as_milliseconds(first.milliseconds)} <em>ms</em>", note)]
    others = "".join(f"; {in_times(s.times)} times {FORMS[s.form]}" for s in found[1:] if s.times is not None)
    note = f"as fast as its teacher {FORMS[first.form]}".strip() + f", {ms}{others}"
    return [("Speed", f"{in_times(first.times)} <em>times</em>", note)]
