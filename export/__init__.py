"""From a network to a file that is proven to run: canonical graph, portable ONNX, validation, timing."""

from bnn_itrd.export.checks.agreement import Agreement, Disagreement, agreement, predict_model, validate
from bnn_itrd.export.ort.file import portable, to_onnx
from bnn_itrd.export.runtime.bench import compare_milliseconds, interleaved_seconds, milliseconds_per_image
from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtime.predict import predict_file
from bnn_itrd.export.runtime.sessions import FORMAT_VERSION, read_metadata, session, uses_native
from bnn_itrd.export.tracing.trace import canonical, traced_once

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
