"""The public names and where each is defined; `__init__.py` and type checkers read this file."""

from .checks.agreement import Agreement as Agreement
from .checks.agreement import Disagreement as Disagreement
from .checks.agreement import agreement as agreement
from .checks.agreement import predict_model as predict_model
from .checks.agreement import validate as validate
from .ort.file import portable as portable
from .ort.file import to_onnx as to_onnx
from .runtime.bench import compare_milliseconds as compare_milliseconds
from .runtime.bench import interleaved_seconds as interleaved_seconds
from .runtime.bench import milliseconds_per_image as milliseconds_per_image
from .runtime.errors import ExportError as ExportError
from .runtime.errors import ImageError as ImageError
from .runtime.predict import Prediction as Prediction
from .runtime.predict import classify_images as classify_images
from .runtime.predict import predict_file as predict_file
from .runtime.sessions import FORMAT_VERSION as FORMAT_VERSION
from .runtime.sessions import read_metadata as read_metadata
from .runtime.sessions import session as session
from .runtime.sessions import uses_native as uses_native
from .tracing.trace import canonical as canonical
from .tracing.trace import traced_once as traced_once
