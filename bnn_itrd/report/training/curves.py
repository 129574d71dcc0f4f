"""The curves of the report's section "Training": accuracies and losses in each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from bnn_itrd.plots import (
    COLOURS,
    Line,
    colour_repeats,
    curve,
    last_and_best,
    line_chart,
    log_suits,
    model_name,
    number,
    second_half,
)
from bnn_itrd.report.formats import as_duration
from bnn_itrd.report.markup import colour_square, details, figure, grid, legend, missing
from bnn_itrd.report.training.watched import watched_details
from bnn_itrd.report.view import View, model_top1

__all__ = ["curves_section"]


def curves_section(view: View) -> str:
    """Returns the section "Training" as HTML: curves of accuracy, loss, the loss's terms, and recorded statistics."""

    def lines(key: str, *, late: bool = False) -> list[Line]:
        found = []
        for place, model in enumerate(view.models):
            points = curve(model, key)
            best = last_and_best(model)
            if late:
                points = second_half(points)
            mark = best[1] if best and key == "test_top1" else None
            found.append(Line(model_name(model), points, view.colour(model), colour_repeats(place), mark))
        found = [line for line in found if line.points]
        if key != "test_top1" or not found:
            return found
        # A model without a curve, such as a teacher from a file, is drawn as a horizontal line.
        epochs = [epoch for line in found for epoch, _ in line.points]
        for model in view.models:
            level = model_top1(model)
            if not curve(model, key) and level is not None:
                ends = [(min(epochs), level), (max(epochs), level)]
                found.append(Line(model_name(model), ends, view.colour(model), True))
        return found

    figures = []
    accuracy, late = lines("test_top1"), lines("test_top1", late=True)
    if accuracy:
        figures.append(figure("Test accuracy", line_chart(accuracy, label="Test accuracy per epoch", y_label="%")))
    if max((len(line.points) for line in accuracy), default=0) > 7:
        chart = line_chart(late, label="Test accuracy, second half", y_label="%")
        figures.append(figure("Test accuracy, second half of training", chart))
    for key, title in (("loss", "Training loss"), ("test_loss", "Test loss")):
        if found := lines(key):
            chart = line_chart(found, label=f"{title} per epoch", y_label=key.replace("_", " "), log=_spread(found))
            figures.append(figure(title, chart))
    if not figures:
        return missing("No curves were recorded.")
    names = legend(f"{view.swatch(model)}<i>{escape(_training_note(view, model))}</i>" for model in view.models)
    note = (
        "A dot marks the last epoch and a ring the best. Each network's training loss has its own terms, so that "
        "only the shapes of the curves can be compared."
    )
    return names + grid(figures) + f'<p class="note">{note}</p>' + _loss_terms(view) + watched_details(view)


def _spread(lines: Sequence[Line]) -> bool:
    """Returns whether the curves need a logarithmic y axis, because their values span a large range."""
    return log_suits([value for line in lines for _, value in line.points])


def _training_note(view: View, model: dict[str, Any]) -> str:
    seconds = sum(value for _, value in curve(model, "seconds"))
    epochs = number(model.get("epochs"))
    words = [view.kind(model)] if view.kind(model) else []
    words += ([] if epochs is None else [f"{epochs:g} epoch{'' if epochs == 1 else 's'}"]) + (
        [as_duration(seconds)] if seconds else []
    )
    if not curve(model, "test_top1"):
        words.append("no curve, dashed" if model_top1(model) is not None else "no curve")
    return ", ".join(words)


def _loss_terms(view: View) -> str:
    figures = []
    for model in view.models:
        rows = model.get("curve") or []
        names = list(dict.fromkeys(str(name) for row in rows for name in row.get("train_loss_parts") or {}))
        found = [(name, curve(model, "train_loss_parts", name)) for name in names]
        lines = [
            Line(name, points, f"var(--s{(i + 1) % len(COLOURS)})") for i, (name, points) in enumerate(found) if points
        ]
        if len(lines) < 2:
            continue
        keys = legend(colour_square(line.colour) + escape(line.name) for line in lines)
        chart = line_chart(lines, label=f"Loss terms of {model_name(model)}", y_label="loss", log=_spread(lines))
        figures.append(figure(escape(model_name(model)), keys + chart))
    return details("Terms of the training loss", figures)
