"""The runtime: it runs exported .onnx files with NumPy and onnxruntime, without torch; Pillow reads image files."""

from .bench import compare_milliseconds, interleaved_seconds, milliseconds_per_image
from .errors import ExportError, ImageError
from .format import FORMAT_VERSION
from .predict import Prediction, classify_images, predict_file
from .sessions import read_metadata, session, uses_native

__all__ = [
    "FORMAT_VERSION",
    "ExportError",
    "ImageError",
    "Prediction",
    "classify_images",
    "compare_milliseconds",
    "interleaved_seconds",
    "milliseconds_per_image",
    "predict_file",
    "read_metadata",
    "session",
    "uses_native",
]
