"""Section "Size and latency": what accuracy is paid for."""

from __future__ import annotations

from bnn_itrd.plots import Dot, model_name, number, scatter_chart
from bnn_itrd.report.formats import as_bytes, as_milliseconds, fixed
from bnn_itrd.report.markup import figure, grid, missing
from bnn_itrd.report.view import View, model_top1

__all__ = ["tradeoffs_section"]


def tradeoffs_section(view: View) -> str:
    figures = []
    for key, title, write, unit in (
        ("bytes", "Accuracy against size", as_bytes, "size of the weights"),
        ("ms_per_image", "Accuracy against latency", as_milliseconds, "ms per image"),
    ):
        dots: list[Dot] = []
        for model in view.models:
            sources = [(model, model_name(model), model_top1(model))]
            sources += [
                (artefact, f"{model_name(model)} ({artefact.get('target', 'file')})", number(artefact.get("top1")))
                for artefact in model.get("artefacts") or []
            ]
            for source, name, top1 in sources:
                x = number(source.get(key))
                known = dots and dots[-1].x == x and dots[-1].y == top1
                if x is None or top1 is None or (source is not model and known):
                    continue
                note = f"{fixed(top1, 2)} %, {write(x)}"
                dots.append(Dot(name, x, top1, view.colour(model), source is not model, note))
        if dots:
            chart = scatter_chart(dots, label=title, x_label=unit, y_label="top-1, %", x_text=write)
            figures.append(figure(title, chart))
    if not figures:
        return missing("Neither sizes nor times were measured.")
    note = "Dots: the networks, binary weights counted as one bit. Rings: their exported files, as measured."
    return grid(figures) + f'<p class="note">{note}</p>'
