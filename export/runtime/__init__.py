"""What runs a file written by this package, without torch: NumPy, onnxruntime, and onnx for reading its metadata."""

from .bench import compare_milliseconds, interleaved_seconds, milliseconds_per_image
from .errors import ExportError
from .format import FORMAT_VERSION
from .predict import predict_file
from .sessions import read_metadata, session, uses_native

__all__ = [
    "FORMAT_VERSION",
    "ExportError",
    "compare_milliseconds",
    "interleaved_seconds",
    "milliseconds_per_image",
    "predict_file",
    "read_metadata",
    "session",
    "uses_native",
]
