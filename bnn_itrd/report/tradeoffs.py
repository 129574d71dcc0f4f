"""The report's section "Size and latency": accuracy against the size of the file and the time per image."""

from __future__ import annotations

from bnn_itrd.plots import Dot, model_name, number, scatter_chart
from bnn_itrd.report.formats import as_bytes, as_milliseconds, fixed
from bnn_itrd.report.markup import figure, grid, legend, missing
from bnn_itrd.report.speed import FORMS, speed_part, speeds
from bnn_itrd.report.view import View, model_top1

__all__ = ["tradeoffs_section"]


def tradeoffs_section(view: View) -> str:
    """Returns the section "Size and latency" as HTML: two scatter plots, and the table of speeds."""
    figures = []
    for key, title, write, unit in (
        ("bytes", "Accuracy against size", as_bytes, "size of the ONNX file"),
        ("ms_per_image", "Accuracy against latency", as_milliseconds, "ms per image"),
    ):
        dots: list[Dot] = []
        for model in view.models:
            x, top1 = number(model.get(key)), model_top1(model)
            if x is not None and top1 is not None:
                note = f"{fixed(top1, 2)} %, {write(x)}"
                dots.append(Dot(model_name(model), x, top1, view.colour(model), note))
        if dots:
            chart = scatter_chart(dots, label=title, x_label=unit, y_label="top-1, %", x_text=write)
            figures.append(figure(title, chart, _how(view) if key == "ms_per_image" else ""))
    speed = speed_part(view)
    if not figures and not speed:
        return missing("Neither sizes nor times were measured.")
    return legend(view.named(model) for model in view.models) + grid(figures) + speed


def _how(view: View) -> str:
    """Returns a note for the latency chart as HTML: which networks were timed with the native library."""
    forms: dict[str, list[str]] = {}
    for model in view.models:
        for speed in speeds(view, model)[:1]:
            forms.setdefault(FORMS[speed.form], []).append(view.swatch(model))
    return "; ".join(f"{', '.join(names)} {form}" for form, names in forms.items() if form)
