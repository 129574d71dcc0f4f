"""Figures of the numbers that distillers report at the end of each epoch, as in the ITRD and projector papers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from bnn_itrd.plots import COLOURS, Line, colour_repeats, curve, line_chart, log_suits, model_name
from bnn_itrd.report.markup import colour_square, details, figure, legend
from bnn_itrd.report.view import View

__all__ = ["watched_details"]

# (the part of a name in `watched` after the distiller's, title of the figure, label of its axis)
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
    """Returns the figures of the projections, of ITRD's two terms, and of the batch's entropy, which open by a click.

    It is "" if no model's curve has `watched` numbers.
    """
    figures = [_singular_values(model, distiller) for model in view.models for distiller in _distillers(model)]
    for key, title, axis in _OF_EACH:
        figures.append(_figure(title, [line for model in view.models for line in _lines(view, model, key)], axis))
    entropies = [line for model in view.models for line in _lines(view, model, "gram_entropy")]
    entropies += [line for model in view.models for line in _lines(view, model, "teacher_gram_entropy", note="teacher")]
    figures.append(_figure("Entropy of the batch's Gram matrix (teacher's dashed)", entropies, "bits"))
    return details("Representations: one batch at the end of each epoch", [found for found in figures if found])


def _distillers(model: dict[str, Any]) -> list[str]:
    """Returns the names of the distillers that reported numbers, in their order of appearance."""
    rows = [row.get("watched") for row in model.get("curve") or []]
    names = [str(name).partition(".")[0] for watched in rows if isinstance(watched, dict) for name in watched]
    return list(dict.fromkeys(names))


def _lines(view: View, model: dict[str, Any], key: str, *, note: str = "") -> list[Line]:
    """Returns a line for each distiller of the model that reported the number `key`."""
    found = []
    for distiller in _distillers(model):
        points = curve(model, "watched", f"{distiller}.{key}")
        dashed = bool(note) or colour_repeats(view.place(model))
        words = ", ".join(word for word in (model_name(model), distiller, note) if word)
        if points:
            found.append(Line(words, points, view.colour(model), dashed))
    return found


def _singular_values(model: dict[str, Any], distiller: str) -> str:
    """Returns the figure of the quartiles of the projection's singular values, for one model."""
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
