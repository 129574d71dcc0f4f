"""The native library: binary convolutions as operators of onnxruntime, in C++ (docs/native.md)."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from ..format import FORMAT_VERSION

__all__ = ["kernel", "library_path", "why_unavailable"]

_FILE = Path(__file__).resolve().parent / "libbnn_itrd.so.1"


@functools.cache
def _load(file: Path) -> ctypes.CDLL | str:
    """The library, or why it cannot be loaded."""
    if not file.is_file():
        return (
            "the native library was not built: it is made when bnn_itrd is installed, on Linux (x86-64, aarch64) where "
            "there is a C++ compiler (c++, or the environment variable CXX)"
        )
    try:
        library = ctypes.CDLL(str(file))
        library.bnn_itrd_kernel.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return f"the native library {file} cannot be loaded: {error}"
    # One that knows some of a file's operations only would give signs in its own form to standard operations.
    if getattr(library, "bnn_itrd_format", int)() != FORMAT_VERSION:
        return f"the native library {file} was built from other sources than this bnn_itrd: install bnn_itrd again"
    return library


def _dispatch() -> tuple[str, str]:
    """(kernel, why there is none), one of them empty. Asked anew each time: the environment may have changed."""
    library = _load(_FILE)
    if isinstance(library, str):
        return "", library
    message = ctypes.create_string_buffer(512)
    name = library.bnn_itrd_kernel(message, ctypes.c_int64(len(message)))
    return (name.decode(), "") if name else ("", message.value.decode())


def why_unavailable() -> str:
    """Why there is no native library for this machine, or an empty text where there is one."""
    return _dispatch()[1]


def library_path() -> Path | None:
    """The file for `SessionOptions.register_custom_ops_library`; None where there is none, see `why_unavailable`."""
    return _FILE if not why_unavailable() else None


def kernel() -> str:
    """Which kernel runs: "avx512", "avx2", "neon" or "portable".

    The best this processor has; the environment variable BNN_ITRD_KERNEL names a lower one.
    Raises ValueError where the library is not available, the name is unknown, or the processor cannot run that kernel.
    """
    name, why = _dispatch()
    if why:
        raise ValueError(why)
    return name
