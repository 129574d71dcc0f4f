"""Charts of the statistics that distillation losses record at the end of each epoch, as in the ITRD papers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from bnn_itrd.plots import COLOURS, Line, colour_repeats, curve, line_chart, log_suits, model_name
from bnn_itrd.report.markup import colour_square, details, figure, legend
from bnn_itrd.report.view import View

__all__ = ["watched_details"]

# A row of the training's curve has the statistics as `watched`: {"itrd.mi": 0.5, ...}. For each chart: the part of the
# name after the distiller's, the chart's title, the name of its y axis.
_OF_EACH = (
    ("in_out_correlation", "Correlation between the projection's input and output", "mean |r|"),
    ("corr", "Correlation loss, one batch", "loss"),
    ("mi", "Mutual-information loss, one batch", "loss"),
)
_SINGULAR = {
    "singular_max": "largest",
    "singular_upper": "upper quartile",
    "singular_median": "median",
    "singular_lower": "lower quartile",
    "singular_min": "smallest",
}


def watched_details(view: View) -> str:
    """Returns as HTML the charts of statistics that distillation losses recorded, which a click on the title opens.

    They are the projections' singular values and correlations, ITRD's two losses, and the entropies of the features.
    The result is "" if nothing was recorded.
    """
    figures = [_singular_values(model, distiller) for model in view.models for distiller in _distillers(model)]
    for key, title, axis in _OF_EACH:
        figures.append(_figure(title, [line for model in view.models for line in _lines(view, model, key)], axis))
    entropies = [line for model in view.models for line in _lines(view, model, "gram_entropy")]
    entropies += [line for model in view.models for line in _lines(view, model, "teacher_gram_entropy", note="teacher")]
    figures.append(_figure("Entropy of the batch's Gram matrix (teacher's dashed)", entropies, "bits"))
    return details("Representations: one batch at the end of each epoch", [found for found in figures if found])


def _distillers(model: dict[str, Any]) -> list[str]:
    """Returns the names of a network's distillation losses that recorded statistics, in the order of the records."""
    rows = [row.get("watched") for row in model.get("curve") or []]
    names = [str(name).partition(".")[0] for watched in rows if isinstance(watched, dict) for name in watched]
    return list(dict.fromkeys(names))


def _lines(view: View, model: dict[str, Any], key: str, *, note: str = "") -> list[Line]:
    """Returns a curve for each distillation loss of a network that recorded the statistic `key`.

    note: a word after the curve's name; a curve with a note is dashed.
    """
    found = []
    for distiller in _distillers(model):
        points = curve(model, "watched", f"{distiller}.{key}")
        dashed = bool(note) or colour_repeats(view.place(model))
        words = ", ".join(word for word in (model_name(model), distiller, note) if word)
        if points:
            found.append(Line(words, points, view.colour(model), dashed))
    return found


def _singular_values(model: dict[str, Any], distiller: str) -> str:
    """Returns as HTML a chart of the singular values of a distillation loss's projection: extremes and quartiles."""
    found = [(text, curve(model, "watched", f"{distiller}.{key}")) for key, text in _SINGULAR.items()]
    lines = [Line(text, points, f"var(--s{i % len(COLOURS)})") for i, (text, points) in enumerate(found) if points]
    keys = legend(colour_square(line.colour) + escape(line.name) for line in lines)
    title = f"Singular values of the projection, {model_name(model)}, {distiller}"
    return _figure(title, lines, "singular value", keys)


def _figure(title: str, lines: Sequence[Line], axis: str, keys: str = "") -> str:
    values = [value for line in lines for _, value in line.points]
    if not values:
        return ""
    chart = line_chart(lines, label=f"{title} per epoch", y_label=axis, log=log_suits(values))
    return figure(escape(title), keys + chart)
