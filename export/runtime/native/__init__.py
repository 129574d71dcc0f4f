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

# The names under which `src/building.py` builds it. On Linux the suffix is not that of an extension module, which
# Python would try to import.
_NAMES = {"darwin": "libbnn_itrd.1.dylib", "win32": "bnn_itrd.dll"}
_FILE = Path(__file__).resolve().parent / _NAMES.get(sys.platform, "libbnn_itrd.so.1")
# File in which the build writes why it made no library.
_REASON = "not_built.txt"
# Number of the processor in the header of an ELF file -> the machine's name.
_MACHINES = {62: "x86_64", 183: "aarch64"}


def _absent(folder: Path) -> str:
    """Returns why there is no library in the folder."""
    note = folder / _REASON
    why = note.read_text(encoding="utf-8").strip() if note.is_file() else "the build found no C++17 compiler"
    return f"{DISTRIBUTION} was installed without the native library: {why}"


def _foreign(file: Path) -> str:
    """Returns a message where the library is for another processor (the system's says "no such file"), else ""."""
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
    """Returns the library, or a message why it cannot be loaded."""
    if not file.is_file():
        return _absent(file.parent)
    try:
        if wrong := _foreign(file):
            return wrong
        library = ctypes.CDLL(str(file))
        library.bnn_itrd_kernel.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return f"the native library {file} cannot be loaded: {error}"
    # A library that knows only some of a file's operations would pass its packed signs to standard operations.
    found = getattr(library, "bnn_itrd_format", int)()
    if found != FORMAT_VERSION:
        return (
            f"the native library {file} was built from other sources than this {DISTRIBUTION} (its format is {found}, "
            f"not {FORMAT_VERSION}): install {DISTRIBUTION} again"
        )
    return library


def _dispatch() -> tuple[str, str]:
    """Returns (kernel, why there is none), one of them empty; BNN_ITRD_KERNEL is read at each call."""
    library = _load(_FILE)
    if isinstance(library, str):
        return "", library
    message = ctypes.create_string_buffer(512)
    name = library.bnn_itrd_kernel(message, ctypes.c_int64(len(message)))
    return (name.decode(), "") if name else ("", message.value.decode())


def why_unavailable() -> str:
    """Returns why the native library cannot be used on this machine; empty where it can."""
    return _dispatch()[1]


def library_path() -> Path | None:
    """Returns the library for `SessionOptions.register_custom_ops_library`; None where it cannot be used."""
    return _FILE if not why_unavailable() else None


def kernel() -> str:
    """Returns the name of the kernel that runs: "avx512", "avx2", "neon" or "portable".

    It is the fastest that this processor can run; the environment variable BNN_ITRD_KERNEL can name another one.
    Raises ValueError where the library is not available, the name is unknown, or the processor cannot run that kernel.
    """
    name, why = _dispatch()
    if why:
        raise ValueError(why)
    return name
