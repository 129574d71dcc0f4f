"""Larq Compute Engine (LCE): a network as one .tflite file for ARM phones and boards, and LCE's interpreter for it."""

from bnn_itrd.export.lce.interpreter import run_lce, time_lce
from bnn_itrd.export.lce.reader import LCE_FORMAT_VERSION, read_lce_metadata
from bnn_itrd.export.lce.tflite_file import to_lce

__all__ = ["LCE_FORMAT_VERSION", "read_lce_metadata", "run_lce", "time_lce", "to_lce"]
