"""From a network to a file that is proven to run: canonical graph, portable ONNX, validation, timing."""

from bnn_itrd.export.canonical import canonical, traced_once
from bnn_itrd.export.errors import ExportError
from bnn_itrd.export.onnx_file import portable, to_onnx
from bnn_itrd.export.session import FORMAT_VERSION, read_metadata, session, uses_native
from bnn_itrd.export.timing import compare_milliseconds, interleaved_seconds, milliseconds_per_image
from bnn_itrd.export.validate import Agreement, Disagreement, agreement, predict_file, predict_model, validate

__all__ = [
    "FORMAT_VERSION",
    "Agreement",
    "Disagreement",
    "ExportError",
    "agreement",
    "canonical",
    "compare_milliseconds",
    "interleaved_seconds",
    "milliseconds_per_image",
    "portable",
    "predict_file",
    "predict_model",
    "read_metadata",
    "session",
    "to_onnx",
    "traced_once",
    "uses_native",
    "validate",
]
