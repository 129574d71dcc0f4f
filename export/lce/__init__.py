"""Export to Larq Compute Engine (LCE), a TFLite for binary networks on ARM phones and boards.

`to_lce` writes a network as a .tflite file, `run_lce` and `time_lce` run and time the file in LCE's interpreter.
"""

from bnn_itrd.export.lce.interpreter import run_lce, time_lce
from bnn_itrd.export.lce.reader import LCE_FORMAT_VERSION, read_lce_metadata
from bnn_itrd.export.lce.tflite_file import to_lce

__all__ = ["LCE_FORMAT_VERSION", "read_lce_metadata", "run_lce", "time_lce", "to_lce"]
