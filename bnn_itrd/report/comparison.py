"""The report's section "Comparison": a table with one row for each network."""

from __future__ import annotations

from html import escape
from typing import Any

from bnn_itrd.plots import number
from bnn_itrd.report.formats import (
    as_bytes,
    as_milliseconds,
    as_percent,
    as_scaled,
    as_signed,
    as_times,
    as_whole,
    or_dash,
)
from bnn_itrd.report.interval import interval_range
from bnn_itrd.report.markup import missing, table
from bnn_itrd.report.speed import speeds
from bnn_itrd.report.view import View, points_above
from bnn_itrd.words import counted

__all__ = ["comparison_section"]


def comparison_section(view: View) -> str:
    """Returns the section "Comparison" as HTML: a table of the networks' accuracies, sizes, operations and times."""
    if not view.models:
        return missing("The comparison holds no models.")
    head = (
        "Model",
        "Top-1<br>last",
        "Top-1<br>best",
        "Top-5<br>last",
        "Against<br>teacher",
        "Agrees with<br>teacher",
        "Parameters",
        "ONNX<br>file",
        "Smaller than<br>teacher",
        "Binary<br>MACs",
        "Float<br>MACs",
        "ms per<br>image",
    )
    rows = []
    for model in view.models:
        words = [str(model["network"])] if model.get("network") else []
        if "binary" in model:
            words.append("1-bit" if model["binary"] else "float")
        kind = f"<small>{escape(view.kind(model))}</small>" if view.kind(model) else ""
        epoch = number(model.get("best_epoch"))
        best = as_percent(model.get("top1_best")) + ("" if epoch is None else f"<small>epoch {epoch:g}</small>")
        top1 = as_percent(model.get("top1_last"))
        interval = interval_range(number(model.get("top1_last")), view.images)
        rows.append(
            (
                f"<b>{view.swatch(model)}</b>{kind}<small>{escape(', '.join(words))}</small>",
                f"<b>{top1}</b><small>{interval}</small>",
                best,
                as_percent(model.get("top5_last")),
                as_signed(points_above(model, view.teacher(model))),
                as_percent(model.get("agreement_with_teacher")),
                as_whole(model.get("parameters")),
                as_bytes(model.get("bytes")),
                or_dash(model.get("compression"), as_times),
                as_scaled(model.get("binary_macs")),
                as_scaled(model.get("float_macs")),
                as_milliseconds(model.get("ms_per_image")) + _form(view, model),
            )
        )
    # Without held-out images the best epoch was chosen on the test images, so that its accuracy is too high.
    picked = "" if number((view.raw.get("dataset") or {}).get("val")) else ", on which the best epoch was chosen too"
    notes = [f"Accuracies are in percent of the test images{picked}."]
    if view.images:
        notes.append(f"Small ranges are 95 % Wilson intervals over {counted(view.images, 'image')}.")
    notes.append("MACs are multiply-accumulates per image, binary ones an XNOR and a bit count.")
    whats = dict.fromkeys(str(m["ms_what"]) for m in view.models if m.get("ms_what"))
    if whats:
        notes.append(
            f"Time per image: {escape('; '.join(whats))}. Section Size and latency has every form that was timed."
        )
    return table(head, rows) + f'<p class="note">{" ".join(notes)}</p>'


def _form(view: View, model: dict[str, Any]) -> str:
    """Returns "native" or "stock" as HTML: whether a network was timed with this package's compiled library or without.

    It is "" if that is not recorded.
    """
    form = next((speed.form for speed in speeds(view, model)), "")
    return f"<small>{form}</small>" if form else ""
