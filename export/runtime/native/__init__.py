"""The native library: binary convolutions as operators of onnxruntime, in C++ (docs/reference/native.md)."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from pathlib import Path

from ..distribution import DISTRIBUTION
from ..format import FORMAT_VERSION

__all__ = ["kernel", "library_path", "why_unavailable"]

# As `src/building.py` calls it. On Linux not the suffix of an extension module, which the import system would try.
_NAMES = {"darwin": "libbnn_itrd.1.dylib", "win32": "bnn_itrd.dll"}
_FILE = Path(__file__).resolve().parent / _NAMES.get(sys.platform, "libbnn_itrd.so.1")
# Where the build says why it made no library.
_REASON = "not_built.txt"
# Of ELF files, which Linux loads: what the header calls the processors that there is code for.
_MACHINES = {62: "x86_64", 183: "aarch64"}


def _absent(folder: Path) -> str:
    """Why there is no library in the folder, and how to get one."""
    note = folder / _REASON
    why = note.read_text(encoding="utf-8").strip() if note.is_file() else "the build found no C++17 compiler"
    return f"{DISTRIBUTION} was installed without the native library: {why}"


def _foreign(file: Path) -> str:
    """What is wrong with a library for another processor, which the system calls "no such file"; else empty."""
    with file.open("rb") as opened:
        header = opened.read(20)
    number = int.from_bytes(header[18:20], "little")
    machine = platform.machine()
    if header[:4] != b"\x7fELF" or _MACHINES.get(number, "") == machine:
        return ""
    theirs = _MACHINES.get(number, f"another processor (ELF machine {number})")
    return (
        f"the native library {file} is for {theirs}, and this machine is {machine}: install the "
        f"{DISTRIBUTION} made for {machine}"
    )


@functools.cache
def _load(file: Path) -> ctypes.CDLL | str:
    """The library, or why it cannot be loaded."""
    if not file.is_file():
        return _absent(file.parent)
    try:
        if wrong := _foreign(file):
            return wrong
        library = ctypes.CDLL(str(file))
        library.bnn_itrd_kernel.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return f"the native library {file} cannot be loaded: {error}"
    # One that knows some of a file's operations only would give signs in its own form to standard operations.
    found = getattr(library, "bnn_itrd_format", int)()
    if found != FORMAT_VERSION:
        return (
            f"the native library {file} was built from other sources than this {DISTRIBUTION} (its format is {found}, "
            f"not {FORMAT_VERSION}): install {DISTRIBUTION} again"
        )
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
