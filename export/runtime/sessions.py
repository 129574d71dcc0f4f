"""Opening an exported ONNX file: `session` checks it and makes an onnxruntime session, `read_metadata` reads it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bodies import check_bodies
from .chain_program import check_chains
from .checksum import fits
from .distribution import DISTRIBUTION, installed_version
from .errors import ExportError
from .format import CONVOLUTIONS, DOMAIN, FLOAT_CONVOLUTIONS, FORMAT_VERSION, POOLINGS, SIGNS
from .onnx_file import ReadModel, all_operations, read_model

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["FORMAT_VERSION", "read_metadata", "session", "uses_native"]

# Files have a checksum from this format version on.
_SEALED = 2

# Maximum of a session's threads: all are started at once, and a mistyped number would stop the machine.
_MOST_THREADS = 1024

_CHAIN = re.compile(r"Chain(Sign)?\d+")

# Sessions with the native library registered; onnxruntime's objects allow no further attributes.
_NATIVE: weakref.WeakSet[Any] = weakref.WeakSet()


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    return file


def _read(path: Path) -> ReadModel:
    """Reads and checks a file. Raises ExportError where it is not ONNX, has a newer format, or was damaged or changed.

    It also raises ExportError on unknown operations of the domain, on bodies that this package never wrote, and on
    chains whose attributes do not follow from their bodies: see `check_bodies` and `check_chains`.
    """
    data = path.read_bytes()
    try:
        model = read_model(data)
    except ValueError as error:
        raise ExportError(f"{path} is not an ONNX file: {error}") from error
    if not model.ir_version or not model.domains or not model.operations:
        raise ExportError(f"{path} is not an ONNX file: there is no graph in it (was it cut short?)")
    metadata = model.metadata
    ours = _version(path, metadata) >= _SEALED or DOMAIN in model.domains
    if ("sha256" in metadata or ours) and not fits(data, metadata.get("sha256")):
        raise ExportError(
            f"{path} is damaged, or another tool has changed it: its checksum is missing or does not fit its contents. "
            "Export it again, or open it as it is with onnxruntime.InferenceSession"
        )
    _check_operations(path, model)
    check_bodies(model, where=str(path))
    check_chains(model, where=str(path))
    return model


def _check_operations(path: Path, model: ReadModel) -> None:
    """Raises ExportError on an operation of the domain that the format does not have.

    With the native library onnxruntime would run its body, in which signs have another form: the results would be wrong
    without an error.
    """
    known = {*SIGNS, *POOLINGS, *CONVOLUTIONS, *FLOAT_CONVOLUTIONS}
    nodes = [*model.operations, *(node for function in model.functions for node in function.operations)]
    names = {node.op_type for node in all_operations(nodes) if node.domain == DOMAIN} - known
    unknown = sorted(name for name in names if not _CHAIN.fullmatch(name))
    if unknown:
        raise ExportError(
            f"{path} has operations that {DISTRIBUTION} {installed_version()} does not know: "
            f"{', '.join(f'{DOMAIN}.{name}' for name in unknown)}. Update {DISTRIBUTION}, or export the file again"
        )


def _version(path: Path, metadata: Mapping[str, str]) -> int:
    """Returns the format version, 0 for another tool's file. Raises ExportError on one that is too new."""
    try:
        version = int(metadata.get("format_version", "0"))
    except ValueError:
        version = 0
    if version > FORMAT_VERSION:
        raise ExportError(
            f"{path} has format version {version}, this {DISTRIBUTION} reads {FORMAT_VERSION}: update {DISTRIBUTION}"
        )
    return version


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the file's metadata: classes, mean, std, input_shape and other JSON entries as lists, the rest as text.

    Raises FileNotFoundError, or ExportError on a file that is not ONNX, is damaged, has a newer format than this
    package reads, or operations that it does not know.

    >>> read_metadata("student.onnx")["classes"]
    ['cat', 'dog']
    """
    texts = _read(_existing(path)).metadata
    values: dict[str, Any] = dict(texts)
    for key, text in texts.items():
        # A hash or a version that happens to look like a number stays text.
        if text.startswith(("[", "{")) or key in ("format_version", "normalization_baked"):
            with contextlib.suppress(ValueError, RecursionError):  # nested too deep for JSON: it stays text
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
    """Makes a session with the native library registered. Raises ExportError, with the reason, where that fails."""
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


_warned: set[str] = set()


def _warn_once(reason: str) -> None:
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"{reason}; the portable form is used, slower and with the same answers", stacklevel=3)


def session(
    path: str | os.PathLike[str], *, threads: int = 1, native: bool | None = None
) -> onnxruntime.InferenceSession:
    """Opens a file as an onnxruntime session on the CPU, with all graph optimisations and `threads` per operation.

    native: True requires the native library, False does not use it. None, the default, uses it if possible, and warns
    once if it cannot be used; the environment variable BNN_ITRD_NATIVE=0 makes False the default. `uses_native` says
    which form was opened.
    Raises FileNotFoundError, ValueError on threads < 1 or above 1024; ExportError on a file that is not ONNX, is
    damaged or has a newer format, on operations or function bodies that this package does not know, on chains whose
    attributes do not follow from their bodies, on a file without input or output, on one that onnxruntime cannot run,
    and with native=True where the library cannot be used.

    >>> opened = session("student.onnx", threads=2)
    >>> opened.get_inputs()[0].shape
    ['batch', 3, 4, 4]
    """
    import onnxruntime

    file = _existing(path)
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    if threads > _MOST_THREADS:
        raise ValueError(f"threads must be <= {_MOST_THREADS}, got {threads}")
    model = _read(file)
    has_native = DOMAIN in model.domains
    opened = None
    if native is None and os.environ.get("BNN_ITRD_NATIVE") == "0":
        native = False
    if native is not False and has_native:
        try:
            opened = _open_native(file, threads)
            _NATIVE.add(opened)
        except ExportError as error:
            if native:
                raise
            _warn_once(str(error))
    elif native:
        raise ExportError(f"{file} has no operation of the domain {DOMAIN}: there is nothing for the native library")
    if opened is None:
        try:
            opened = onnxruntime.InferenceSession(str(file), _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:
            unknown = _unknown_operations(model)
            why = f"it does not know the operations {', '.join(unknown)}" if unknown else str(error)
            raise ExportError(f"onnxruntime {onnxruntime.__version__} cannot run {file}: {why}") from error
    if not (opened.get_inputs() and opened.get_outputs()):
        raise ExportError(f"{file} has no {'output' if opened.get_inputs() else 'input'}: it is no network")
    return opened


def _unknown_operations(model: ReadModel) -> list[str]:
    """Returns the operations that are neither ONNX's nor functions of the file; a QONNX file has some."""
    bodies = {(function.domain, function.name) for function in model.functions}
    nodes = (node for node in model.operations if node.domain not in ("", "ai.onnx"))
    return sorted({f"{node.domain}.{node.op_type}" for node in nodes if (node.domain, node.op_type) not in bodies})


def uses_native(opened: onnxruntime.InferenceSession) -> bool:
    """Whether `session` registered the native library with this session.

    >>> uses_native(session("student.onnx", native=False))
    False
    """
    return opened in _NATIVE
