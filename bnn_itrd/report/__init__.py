"""A comparison of a teacher and its students as one self-contained HTML page, and its curves as a PNG."""

from bnn_itrd.plots import plot_curves
from bnn_itrd.report.interval import wilson_interval
from bnn_itrd.report.page import write_report
from bnn_itrd.report.summary import headline

__all__ = ["headline", "plot_curves", "wilson_interval", "write_report"]
