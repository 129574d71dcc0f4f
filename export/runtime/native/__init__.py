"""Finds the native library: compiled C++ code with which onnxruntime computes binary layers by bit operations.

The library registers an operator with onnxruntime for each operation of `format.py` (docs/reference/native.md). It has
several kernels, each for another instruction set; `kernel` names the one that this machine uses.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from pathlib import Path

from ..distribution import DISTRIBUTION
from ..format import FORMAT_VERSION

__all__ = ["kernel", "library_path", "why_unavailable"]

# The names that `src/building.py` gives the library. On Linux it does not end in .so, because Python would take such a
# file for a module and try to import it.
_NAMES = {"darwin": "libbnn_itrd.1.dylib", "win32": "bnn_itrd.dll"}
_FILE = Path(__file__).resolve().parent / _NAMES.get(sys.platform, "libbnn_itrd.so.1")
# File in which the build says why it made no library.
_REASON = "not_built.txt"
# Number of the processor in the header of an ELF file -> the machine's name.
_MACHINES = {62: "x86_64", 183: "aarch64"}


def _absent(folder: Path) -> str:
    """Returns a message that says why the native library is not in its folder."""
    note = folder / _REASON
    why = note.read_text(encoding="utf-8").strip() if note.is_file() else "the build found no C++17 compiler"
    return f"{DISTRIBUTION} was installed without the native library: {why}"


def _foreign(file: Path) -> str:
    """Returns a message if the native library `file` is for another kind of processor, else "".

    It is checked here because the system's own message would be "no such file".
    """
    with file.open("rb") as opened:
        header = opened.read(20)
    number = int.from_bytes(header[18:20], "little")
    machine = platform.machine()
    if header[:4] != b"\x7fELF" or _MACHINES.get(number, "") == machine:
        return ""
    theirs = _MACHINES.get(number, f"another processor (ELF machine {number})")
    return (
        f"the native library {file} was compiled for {theirs}, and this machine is {machine}: install the "
        f"{DISTRIBUTION} for {machine}"
    )


@functools.cache
def _load(file: Path) -> ctypes.CDLL | str:
    """Loads the native library from `file` and returns it, or a message that says why it cannot be used."""
    if not file.is_file():
        return _absent(file.parent)
    try:
        if wrong := _foreign(file):
            return wrong
        library = ctypes.CDLL(str(file))
        library.bnn_itrd_kernel.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return f"the native library {file} cannot be loaded: {error}"
    # A library that knows only some of a file's operations must not be used: it packs signs into bits, which the
    # standard operations of the others could not read.
    found = getattr(library, "bnn_itrd_format", int)()
    if found != FORMAT_VERSION:
        return (
            f"the native library {file} was built from other sources than this {DISTRIBUTION} (its format version is "
            f"{found}, not {FORMAT_VERSION}): install {DISTRIBUTION} again"
        )
    return library


def _dispatch() -> tuple[str, str]:
    """Returns (name of the native library's kernel for this machine, "") or, if none can run, ("", reason).

    The environment variable BNN_ITRD_KERNEL, which can choose a kernel, is read at each call.
    """
    library = _load(_FILE)
    if isinstance(library, str):
        return "", library
    message = ctypes.create_string_buffer(512)
    name = library.bnn_itrd_kernel(message, ctypes.c_int64(len(message)))
    return (name.decode(), "") if name else ("", message.value.decode())


def why_unavailable() -> str:
    """Returns the reason why the native library cannot be used on this machine, or "" if it can be used.

    >>> bool(why_unavailable()) == (library_path() is None)
    True
    """
    return _dispatch()[1]


def library_path() -> Path | None:
    """Returns the path of the native library, or None if it cannot be used on this machine.

    It is what onnxruntime's `SessionOptions.register_custom_ops_library` takes.

    >>> library_path()  # doctest: +SKIP
    PosixPath('/usr/lib/python3.12/site-packages/bnn_itrd_runtime/native/libbnn_itrd.so.1')
    """
    return _FILE if not why_unavailable() else None


def kernel() -> str:
    """Returns the name of the kernel that computes binary layers on this machine, such as "avx2".

    It is "avx512", "avx2" or "neon", the fastest that the processor can run. The environment variable BNN_ITRD_KERNEL
    can name another one, also "portable", which is plain C++.
    Raises ValueError if the library cannot be used, or if the variable has an unknown name or that of a kernel which
    the processor cannot run.

    >>> kernel()  # doctest: +SKIP
    'avx2'
    """
    name, why = _dispatch()
    if why:
        raise ValueError(why)
    return name
