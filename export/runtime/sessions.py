"""Opens exported ONNX files: `session` checks a file and opens it in onnxruntime, `read_metadata` returns its metadata.

A file can run in two forms. The stock form needs onnxruntime alone and computes binary layers with float operations.
In the native form the compiled library of the folder native/ computes them with bit operations: the results are the
same, and it is faster.
"""

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

# First version of the file format in which files have a checksum.
_SEALED = 2

# Largest number of threads of a session. All are started at once, so that a mistyped number could block the machine.
_MOST_THREADS = 1024

# Names of chains, operations that stand for several operations in a row.
_CHAIN = re.compile(r"Chain(Sign)?\d+")

# Sessions in the native form. They are listed here because onnxruntime's objects allow no further attributes.
_NATIVE: weakref.WeakSet[Any] = weakref.WeakSet()


def _existing(path: str | os.PathLike[str]) -> Path:
    """Returns the path of a file as a Path. Raises FileNotFoundError if there is no file at it."""
    file = Path(path)
    if file.is_dir():
        raise FileNotFoundError(f"{file} is a folder: name the .onnx file in it that is to be run")
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    return file


def _read(path: Path) -> ReadModel:
    """Reads a file, checks that it gives the same results with and without the native library, and returns its content.

    Raises ExportError if the file is not ONNX, has a newer format than this package reads, or does not fit its
    checksum. It is also raised on operations, function bodies and chains that this package does not write:
    see `_check_operations`, `check_bodies` and `check_chains`.
    """
    data = path.read_bytes()
    try:
        model = read_model(data)
    except ValueError as error:
        raise ExportError(f"{path} is not an ONNX file: {error}") from error
    if not model.ir_version or not model.domains or not model.operations:
        raise ExportError(f"{path} is not an ONNX file: there is no graph in it (was the file cut short?)")
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
    """Raises ExportError if the file has an operation of this package's domain, `bnn_itrd`, that `format.py` lacks.

    The native library lacks it too, so onnxruntime would run the operation's standard body between native operations.
    The two store signs differently, and the results would be wrong without an error.
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
    """Returns the version of the file's format, or 0 if another tool wrote the file.

    Raises ExportError if the version is newer than this package reads.
    """
    try:
        version = int(metadata.get("format_version", "0"))
    except ValueError:
        version = 0
    if version > FORMAT_VERSION:
        raise ExportError(
            f"{path} has format version {version}, and this {DISTRIBUTION} reads versions up to {FORMAT_VERSION}: "
            f"update {DISTRIBUTION}"
        )
    return version


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the metadata of an ONNX file by name: JSON entries, such as the list `classes`, decoded, others as text.

    A file exported by bnn-itrd also has `input_shape` (channels, height, width), and `mean` and `std` per channel.
    Raises FileNotFoundError if there is no such file. Raises ExportError if it is not ONNX, is damaged, has a newer
    format than this package reads, or has operations that this package does not know.

    >>> read_metadata("student.onnx")["classes"]
    ['cat', 'dog']
    """
    texts = _read(_existing(path)).metadata
    values: dict[str, Any] = dict(texts)
    for key, text in texts.items():
        # Other entries stay text, because a hash or a version can look like a number.
        if text.startswith(("[", "{")) or key in ("format_version", "normalization_baked"):
            with contextlib.suppress(ValueError, RecursionError):  # no JSON, or nested too deep: it stays text
                values[key] = json.loads(text)
    return values


def _options(threads: int) -> onnxruntime.SessionOptions:
    """Returns the options of a session with this number of threads, which logs nothing below an error."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return options


def _open_native(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """Opens a file in a session that uses the native library. Raises ExportError with the reason if it cannot."""
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


# The reasons of which `_warn_once` has warned in this process.
_warned: set[str] = set()


def _warn_once(reason: str) -> None:
    """Warns that a file runs without the native library, and why; each reason is given once in a process."""
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"{reason}; without the library the file runs more slowly, with the same results", stacklevel=3)


def session(
    path: str | os.PathLike[str], *, threads: int = 1, native: bool | None = None
) -> onnxruntime.InferenceSession:
    """Opens an ONNX file as an onnxruntime session on the CPU, with all graph optimisations.

    threads: number of threads that share the work of an operation, from 1 to 1024; native: True requires the compiled
    library that computes binary layers with bit operations, and False does without it. None, the default, uses the
    library if possible and warns once if not; with the environment variable BNN_ITRD_NATIVE=0 it means False.
    Raises FileNotFoundError if there is no such file, and ValueError on another number of threads. Raises ExportError
    on a file that is not ONNX, is damaged, was changed by another tool, has a newer format, or has no input or output;
    if onnxruntime cannot run it; and with native=True if the library cannot be used, or has nothing to compute.

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
        raise ExportError(
            f"{file} has no operation of the domain {DOMAIN}: there is nothing for the native library to compute"
        )
    if opened is None:
        try:
            opened = onnxruntime.InferenceSession(str(file), _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:
            unknown = _unknown_operations(model)
            why = f"it does not know the operations {', '.join(unknown)}" if unknown else str(error)
            raise ExportError(f"onnxruntime {onnxruntime.__version__} cannot run {file}: {why}") from error
    if not (opened.get_inputs() and opened.get_outputs()):
        raise ExportError(f"{file} has no {'output' if opened.get_inputs() else 'input'}: it is not a network")
    return opened


def _unknown_operations(model: ReadModel) -> list[str]:
    """Returns the names of the operations that neither ONNX nor the file itself defines; a QONNX file has some."""
    bodies = {(function.domain, function.name) for function in model.functions}
    nodes = (node for node in model.operations if node.domain not in ("", "ai.onnx"))
    return sorted({f"{node.domain}.{node.op_type}" for node in nodes if (node.domain, node.op_type) not in bodies})


def uses_native(opened: onnxruntime.InferenceSession) -> bool:
    """Returns whether a session made by `session` computes binary layers with the compiled native library.

    >>> uses_native(session("student.onnx", native=False))
    False
    """
    return opened in _NATIVE
