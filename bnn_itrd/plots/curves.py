"""`plot_curves`, which draws the training curves of all networks of a comparison as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_itrd.plots.colours import COLOURS, colour_index, colour_repeats
from bnn_itrd.plots.files import write_atomically
from bnn_itrd.plots.values import Point, curve, last_and_best, log_suits, model_name, number, second_half

__all__ = ["CURVES_PIXELS", "plot_curves"]

CURVES_PIXELS = (1680, 720)


def plot_curves(comparison: dict[str, Any], path: Path) -> Path:
    """Draws the test accuracy and the training loss of each epoch as a PNG, writes it to `path`, and returns the path.

    `comparison` is the content of a comparison.json. On the accuracy, a dot marks the last epoch and a star the best. A
    network without curve, such as a teacher from a file, is a dashed line at its accuracy. The size is CURVES_PIXELS.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    models = comparison.get("models") or []
    figure = Figure(figsize=(CURVES_PIXELS[0] / 150, CURVES_PIXELS[1] / 150), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    canvas = FigureCanvasAgg(figure)
    accuracy, loss = figure.subplots(1, 2)
    _draw_axes(accuracy, "Test accuracy, %")
    _draw_axes(loss, "Training loss (each with its own terms)")
    handles, texts = [], []
    for place, model in enumerate(models):
        style, text = _style(place), model_name(model)
        if (marks := last_and_best(model)) is not None:
            last, best = marks
            handles.append(_draw_accuracy(accuracy, curve(model, "test_top1"), marks, style))
            texts.append(f"{text}: {last[1]:.2f} last, {best[1]:.2f} best (epoch {best[0]:g})")
        elif (level := number(model.get("top1_last"))) is not None:
            handles.append(accuracy.axhline(level, color=style["color"], linestyle=(0, (2, 2)), linewidth=1.4))
            texts.append(f"{text}: {level:.2f}")
        if points := curve(model, "loss"):
            loss.plot(*zip(*points, strict=True), linewidth=1.6, **style)
    for axes in (accuracy, loss):
        if not axes.lines:
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color="#64748b")
    losses = [value for model in models for _, value in curve(model, "loss")]
    if losses and log_suits(losses):
        loss.set_yscale("log")
    _draw_inset(accuracy, models)
    if handles:
        # Matplotlib would hide an entry that begins with an underscore, and read a dollar sign as a formula.
        shown = [f" {text}" if text.startswith("_") else text for text in texts]
        columns = min(2 if len(texts) == 4 or max(map(len, texts)) > 48 else 3, len(texts))
        legend = figure.legend(handles, shown, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    with write_atomically(path) as temporary:
        canvas.print_png(str(temporary))
    return path


def _style(place: int) -> dict[str, Any]:
    return {"color": COLOURS[colour_index(place)][0], "linestyle": "--" if colour_repeats(place) else "-"}


def _draw_axes(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color="#1e293b")
    axes.set_xlabel("epoch", color="#475569")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#94a3b8")
    axes.tick_params(colors="#475569", labelsize=9)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.02)


def _draw_accuracy(
    axes: Any, points: Sequence[Point], marks: tuple[Point, Point], style: dict[str, Any], *, linewidth: float = 1.6
) -> Any:
    """Draws the accuracy of one network over the epochs, and returns the line.

    marks: the points (epoch, accuracy) of the last epoch, which gets a dot, and of the best epoch, which gets a star if
    it is among `points`.
    """
    last, best = marks
    (line,) = axes.plot(*zip(*points, strict=True), linewidth=linewidth, **style)
    axes.plot(*last, "o", color=style["color"], markersize=5)
    if best in points:
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.7}
        axes.plot(*best, "*", color=style["color"], markersize=11, **edge)
    return line


def _draw_inset(axes: Any, models: Sequence[dict[str, Any]]) -> None:
    """Draws the second half of the training again on a larger scale, because curves are close together there.

    Nothing is drawn if the curves leave no space for it, or if there are fewer than eight epochs.
    """
    points = [point for model in models for point in curve(model, "test_top1")]
    if len({epoch for epoch, _ in points}) < 8:
        return
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    if any(x > left + 0.33 * (right - left) and y < low + 0.68 * (high - low) for x, y in points):
        return
    inset = axes.inset_axes((0.4, 0.09, 0.58, 0.5))
    for place, model in enumerate(models):
        if (marks := last_and_best(model)) is not None:
            late = second_half(curve(model, "test_top1"))
            _draw_accuracy(inset, late, marks, _style(place), linewidth=1.2)
    inset.set_title("second half of training", loc="left", fontsize=8, color="#475569", pad=3)
    inset.tick_params(labelcolor="#475569", labelsize=7.5, color="#94a3b8")
    inset.spines[:].set_color("#cbd5e1")
    inset.grid(axis="y", color="#e2e8f0", linewidth=0.6)
    inset.xaxis.get_major_locator().set_params(integer=True)
