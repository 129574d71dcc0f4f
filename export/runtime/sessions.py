"""Opening an ONNX file: a session with stated threads, its metadata, and errors that say what is wrong."""

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

# From this one on a file holds its own checksum.
_SEALED = 2

# Of a session: each is started when it is opened, and a slip of the hand would take the machine.
_MOST_THREADS = 1024

_CHAIN = re.compile(r"Chain(Sign)?\d+")

# Sessions with the native library registered; onnxruntime's objects take no attributes of ours.
_NATIVE: weakref.WeakSet[Any] = weakref.WeakSet()


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    return file


def _read(path: Path) -> ReadModel:
    """What the file says. Raises ExportError where the bytes are no ONNX, are newer than we read, or changed.

    Operations of the domain that are not in the format, bodies that this package never wrote, and chains whose
    attributes are not those of their bodies are refused too: see `check_bodies` and `check_chains`.
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

    The native library would leave it to its body, which reads signs in another form: wrong results without an error.
    """
    known = {*SIGNS, *POOLINGS, *CONVOLUTIONS, *FLOAT_CONVOLUTIONS}
    nodes = [*model.operations, *(node for function in model.functions for node in function.operations)]
    names = {node.op_type for node in all_operations(nodes) if node.domain == DOMAIN} - known
    strange = sorted(name for name in names if not _CHAIN.fullmatch(name))
    if strange:
        raise ExportError(
            f"{path} has operations that {DISTRIBUTION} {installed_version()} does not know: "
            f"{', '.join(f'{DOMAIN}.{name}' for name in strange)}. Update {DISTRIBUTION}, or export the file again"
        )


def _version(path: Path, metadata: Mapping[str, str]) -> int:
    """0 of a file that is not ours. Raises ExportError on one that is newer than this package reads."""
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
    """The file's metadata; what is JSON (classes, mean, std, input_shape, ...) as lists, the rest as text.

    Raises FileNotFoundError, or ExportError on a file that is not ONNX, is damaged, newer than this package reads, or
    has operations that it does not know.
    """
    texts = _read(_existing(path)).metadata
    values: dict[str, Any] = dict(texts)
    for key, text in texts.items():
        # A hash or a version that happens to look like a number stays text.
        if text.startswith(("[", "{")) or key in ("format_version", "normalization_baked"):
            with contextlib.suppress(ValueError, RecursionError):  # nested a thousand deep it is text, too
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
    Raises FileNotFoundError, ValueError on threads < 1 or above 1024, ExportError on a file that is not ONNX, is
    damaged, is newer than this package reads, has operations it does not know, bodies that it never wrote, chains that
    are not what theirs say, no input or no output, or that onnxruntime cannot run, and with native=True where the
    library cannot be used.
    """
    import onnxruntime

    file = _existing(path)
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    if threads > _MOST_THREADS:
        raise ValueError(f"threads must be <= {_MOST_THREADS}, got {threads}")
    model = _read(file)
    calls_ours = DOMAIN in model.domains
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
            strange = _of_other_tools(model)
            why = f"it does not know the operations {', '.join(strange)}" if strange else str(error)
            raise ExportError(f"onnxruntime {onnxruntime.__version__} cannot run {file}: {why}") from error
    if not (opened.get_inputs() and opened.get_outputs()):
        raise ExportError(f"{file} has no {'output' if opened.get_inputs() else 'input'}: it is no network")
    return opened


def _of_other_tools(model: ReadModel) -> list[str]:
    """The operations that are neither ONNX's nor functions of the file: a QONNX file has some."""
    bodies = {(function.domain, function.name) for function in model.functions}
    nodes = (node for node in model.operations if node.domain not in ("", "ai.onnx"))
    return sorted({f"{node.domain}.{node.op_type}" for node in nodes if (node.domain, node.op_type) not in bodies})


def uses_native(opened: onnxruntime.InferenceSession) -> bool:
    """Whether `session` opened this one with the native library registered."""
    return opened in _NATIVE
