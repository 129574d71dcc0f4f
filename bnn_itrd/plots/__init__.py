"""Draws the charts of a comparison: SVG elements for the HTML report, and one PNG of the training curves."""

from bnn_itrd.plots.charts import Dot, Line, bar_chart, line_chart, scatter_chart
from bnn_itrd.plots.colours import COLOURS, colour_index, colour_mean, colour_repeats
from bnn_itrd.plots.confusion import confusion_image, confusion_table
from bnn_itrd.plots.curves import CURVES_PIXELS, plot_curves
from bnn_itrd.plots.files import write_atomically
from bnn_itrd.plots.labels import place_labels
from bnn_itrd.plots.values import curve, last_and_best, log_suits, model_name, number, second_half

__all__ = [
    "COLOURS",
    "CURVES_PIXELS",
    "Dot",
    "Line",
    "bar_chart",
    "colour_index",
    "colour_mean",
    "colour_repeats",
    "confusion_image",
    "confusion_table",
    "curve",
    "last_and_best",
    "line_chart",
    "log_suits",
    "model_name",
    "number",
    "place_labels",
    "plot_curves",
    "scatter_chart",
    "second_half",
    "write_atomically",
]
