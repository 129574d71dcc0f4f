"""The runtime: it runs the .onnx files that bnn-itrd exports, with NumPy and onnxruntime alone, without torch.

`session` opens a file, `predict_file` computes its logits, and `classify_images` classifies image files (with Pillow).
"""

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
