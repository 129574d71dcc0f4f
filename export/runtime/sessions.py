"""Opening an ONNX file: a session with stated threads, its metadata, and errors that say what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bodies import check_bodies
from .chain_program import check_chains
from .checksum import fits
from .errors import ExportError
from .format import DOMAIN, FORMAT_VERSION

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["FORMAT_VERSION", "read_metadata", "session", "uses_native"]

# From this one on a file holds its own checksum.
_SEALED = 2

# Sessions with the native library registered; onnxruntime's objects take no attributes of ours.
_NATIVE: weakref.WeakSet[Any] = weakref.WeakSet()


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    return file


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    """(ModelProto, metadata). Raises ExportError where the bytes are not one, are newer than we read, or changed.

    Bodies that this package never wrote, and chains whose attributes are not those of their bodies, are refused too:
    see `check_bodies` and `check_chains`.
    """
    import onnx

    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ExportError(f"{path} is not an ONNX file: {error}") from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise ExportError(f"{path} is not an ONNX file: there is no graph in it (was it cut short?)")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    ours = _version(path, metadata) >= _SEALED or any(entry.domain == DOMAIN for entry in model.opset_import)
    if ("sha256" in metadata or ours) and not fits(data, metadata.get("sha256")):
        raise ExportError(
            f"{path} is damaged, or another tool has changed it: its checksum is missing or does not fit its contents. "
            "Export it again, or open it as it is with onnxruntime.InferenceSession"
        )
    check_bodies(model, where=str(path))
    check_chains(model, where=str(path))
    return model, metadata


def _version(path: Path, metadata: Mapping[str, str]) -> int:
    """0 of a file that is not ours. Raises ExportError on one that is newer than this package reads."""
    try:
        version = int(metadata.get("format_version", "0"))
    except ValueError:
        version = 0
    if version > FORMAT_VERSION:
        raise ExportError(f"{path} has format version {version}, this bnn_itrd reads {FORMAT_VERSION}: update bnn_itrd")
    return version


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The file's metadata; what is JSON (classes, mean, std, input_shape, ...) as lists, the rest as text.

    Raises FileNotFoundError, or ExportError on a file that is not ONNX, is damaged, or newer than this package reads.
    """
    _, texts = _read(_existing(path))
    values: dict[str, Any] = dict(texts)
    for key, text in texts.items():
        # A hash or a version that happens to look like a number stays text.
        if text.startswith(("[", "{")) or key in ("format_version", "normalization_baked"):
            with contextlib.suppress(ValueError):
                values[key] = json.loads(text)
    return values


def _options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return options


def _open_native(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """With the native library registered. Raises ExportError that says why it cannot be."""
    import onnxruntime

    from .native import library_path, why_unavailable

    library = library_path()
    if library is None:
        raise ExportError(f"the native library cannot be used: {why_unavailable()}")
    options = _options(threads)
    try:
        options.register_custom_ops_library(str(library))
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(
            f"the native library {library.name} cannot be used with onnxruntime {onnxruntime.__version__} on {file}: "
            f"{error}"
        ) from error


_told: set[str] = set()


def _tell_once(reason: str) -> None:
    if reason not in _told:
        _told.add(reason)
        warnings.warn(f"{reason}; the portable form is used, slower and with the same answers", stacklevel=3)


def session(
    path: str | os.PathLike[str], *, threads: int = 1, native: bool | None = None
) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU, `threads` within an operation, every graph optimisation.

    native: True insists on the native library (and says why it cannot be used), False does without it; None, the
    default, takes it where there is one, and where it fails says so once and goes on without (the environment
    variable BNN_ITRD_NATIVE=0 makes that default False). `uses_native` tells.
    Raises FileNotFoundError, ValueError on threads < 1, ExportError on a file that is not ONNX, is damaged, is newer
    than this package reads, has bodies that it never wrote or chains that are not what theirs say, or that onnxruntime
    cannot run, and with native=True where the library cannot be used.
    """
    import onnxruntime

    file = _existing(path)
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    model, _ = _read(file)
    calls_ours = any(entry.domain == DOMAIN for entry in model.opset_import)
    opened = None
    if native is None and os.environ.get("BNN_ITRD_NATIVE") == "0":
        native = False
    if native is not False and calls_ours:
        try:
            opened = _open_native(file, threads)
            _NATIVE.add(opened)
        except ExportError as error:
            if native:
                raise
            _tell_once(str(error))
    elif native:
        raise ExportError(f"{file} has no operation of the domain {DOMAIN}: there is nothing for the native library")
    if opened is None:
        try:
            opened = onnxruntime.InferenceSession(str(file), _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"onnxruntime {onnxruntime.__version__} cannot run {file}: {error}") from error
    return opened


def uses_native(opened: onnxruntime.InferenceSession) -> bool:
    """Whether `session` opened this one with the native library registered."""
    return opened in _NATIVE
