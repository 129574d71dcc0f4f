"""The report's sections "Classes" and "Confusion": each class's change of accuracy, and the confusion matrices."""

from __future__ import annotations

from html import escape
from typing import Any

from bnn_itrd.plots import bar_chart, colour_mean, confusion_image, confusion_table, model_name, number
from bnn_itrd.report.markup import details, figure, grid, missing, scrolling
from bnn_itrd.report.view import View

__all__ = ["classes_section", "confusion_section"]

_MOST_CLASSES = 20  # up to this number, a confusion matrix has counts, and the chart of classes shows all of them


def classes_section(view: View) -> str:
    """Returns the section "Classes" as HTML: for each student, each class's change of accuracy from its teacher."""
    found, note = [], ""
    for model in view.students:
        teacher = view.teacher(model)
        before, after = _per_class(teacher or {}), _per_class(model)
        if not before or len(before) != len(after):
            continue
        pairs = enumerate(zip(before, after, strict=True))
        changes = [(view.label(i), b - a) for i, (a, b) in pairs if a is not None and b is not None]
        if len(changes) > _MOST_CLASSES:
            note = f"The {_MOST_CLASSES} most changed of {len(changes)} classes."
            changes = sorted(changes, key=lambda change: -abs(change[1]))[:_MOST_CLASSES]
        changes.sort(key=lambda change: -change[1])
        if changes:
            found.append((model, changes))
    if not found:
        return missing("The run recorded no accuracy per class for a student and its teacher.")
    values = [change for _, changes in found for _, change in changes]
    low, high = min(0.0, *values), max(0.0, *values)
    figures = [
        figure(
            view.named(model),
            bar_chart(
                changes,
                low=low,
                high=high,
                colour=view.colour(model),
                label=f"Change of accuracy per class, {model_name(model)}",
            ),
        )
        for model, changes in found
    ]
    more = details("Other students", figures[3:], "thirds")
    lead = "Change of each class's accuracy from teacher to student, in percentage points."
    return f'<p class="lead">{lead} {note}</p>{grid(figures[:3], "thirds")}{more}'


def confusion_section(view: View) -> str:
    """Returns the section "Confusion" as HTML: confusion matrices, first of the best student and its teacher."""
    best = view.best
    order = [model for model in (view.teacher(best) if best else None, best) if model is not None]
    order += [model for model in view.models if not any(model is other for other in order)]
    figures = []
    for model in order:
        matrix = _matrix(model)
        if not matrix:
            continue
        if len(matrix) <= _MOST_CLASSES:
            names = [view.label(i) for i in range(len(matrix))]
            chart = confusion_table(
                matrix, names, colour=view.colour(model), label=f"Confusion matrix of {model_name(model)}"
            )
            chart = scrolling(chart, "scroll inside")
        else:
            source = confusion_image(matrix, colour=colour_mean(view.place(model)))
            alt = escape(f"Confusion matrix of {model_name(model)}")
            chart = f'<img class="matrix pixelated" alt="{alt}" src="{source}">'
            chart = f'<div class="framed"><span>predicted</span><span>true</span>{chart}</div>'
        wrong = [
            (count, i, j)
            for i, row in enumerate(matrix)
            for j, value in enumerate(row)
            if i != j and (count := number(value) or 0) > 0
        ]
        wrong.sort(key=lambda entry: (-entry[0], entry[1:]))
        pairs = [f"{escape(view.label(i))} as {escape(view.label(j))} ({count:g})" for count, i, j in wrong[:6]]
        note = "Most often mistaken: " + ", ".join(pairs) + "." if pairs else "No mistakes."
        figures.append(figure(view.named(model), chart, note))
    if not figures:
        return missing("No confusion matrices were recorded.")
    lead = "Rows are true classes, columns predictions: right answers lie on the diagonal, all others are mistakes. "
    lead += "The deeper the colour, the larger the share of its row; of mistakes it is the square root of the share."
    return f'<p class="lead">{lead}</p>{grid(figures[:2])}{details("Other models", figures[2:])}'


def _per_class(model: dict[str, Any]) -> list[float | None]:
    """Returns a network's accuracy on each class in percent, computed from its confusion matrix if not recorded."""
    if model.get("per_class"):
        return [number(value) for value in model["per_class"]]
    sums = [sum(number(value) or 0.0 for value in row) for row in _matrix(model)]
    return [100 * (number(row[i]) or 0.0) / sums[i] if sums[i] else None for i, row in enumerate(_matrix(model))]


def _matrix(model: dict[str, Any]) -> list[list[Any]]:
    """Returns a network's confusion matrix, or [] if it is missing or not square."""
    matrix = model.get("confusion") or []
    return matrix if all(len(row) == len(matrix) for row in matrix) else []
