"""`load_schema` loads the module of larq-compute-engine that describes the .tflite format, without TensorFlow."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtimes import environments

__all__ = ["load_schema"]

_FILE = Path("larq_compute_engine", "mlir", "python", "tflite_schema.py")
_loaded: dict[Path, ModuleType] = {}


def _in_this_python() -> Path | None:
    """Returns the schema's file if larq-compute-engine is installed for this Python, else None."""
    # find_spec does not import the package, which would import TensorFlow.
    spec = importlib.util.find_spec("larq_compute_engine")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parents[1] / _FILE
    return file if file.is_file() else None


def _in_environment_of(python: Path | None) -> Path | None:
    """Returns the schema's file in the virtual environment of an interpreter, or None if it is not there."""
    if python is None:
        return None
    return next(iter(sorted(python.parents[1].glob(f"lib/python3*/site-packages/{_FILE}"))), None)


def load_schema(python: str | os.PathLike[str] | None = None) -> ModuleType:
    """Returns larq-compute-engine's module ``tflite_schema``, whose classes describe the parts of a .tflite file.

    It is taken from this Python's packages, or else from those of the interpreter `python`, by default the one in the
    environment that `bnn-itrd validate --setup lce` makes. It is loaded by its path, because importing its package
    would import TensorFlow. Raises ExportError, with what to install, if it is in neither.
    """
    file = _in_this_python()
    if file is None:
        file = _in_environment_of(environments.find("lce") if python is None else Path(python))
    if file is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise ExportError(
            f"larq-compute-engine is not installed for this Python {version}, and its TFLite schema is needed: `pip "
            "install larq-compute-engine` (wheels: Python 3.10 to 3.12, Linux x86-64), or make its environment with "
            "`bnn-itrd validate --setup lce`, or name one with --lce-python"
        )
    if file not in _loaded:
        spec = importlib.util.spec_from_file_location("bnn_itrd_tflite_schema", file)
        if spec is None or spec.loader is None:
            raise ExportError(f"{file} cannot be loaded as a Python module: install larq-compute-engine again")
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            raise ExportError(f"the TFLite schema {file} needs a package that is not installed: {error}") from error
        _loaded[file] = module
    return _loaded[file]
