"""Writes the report of a run, which compares a teacher with its students: one HTML page, and a PNG of the curves."""

from bnn_itrd.plots import plot_curves
from bnn_itrd.report.interval import wilson_interval
from bnn_itrd.report.page import write_report
from bnn_itrd.report.summary import headline

__all__ = ["headline", "plot_curves", "wilson_interval", "write_report"]
