"""Compiles the native library: `compile_library`, and the setuptools commands that call it during installation.

This module is not part of the installed package; setuptools loads it by its path before the package exists.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1 has not this command yet
    from wheel.bdist_wheel import bdist_wheel

__all__ = ["LIBRARY", "REASON", "BdistWheel", "BuildPy", "compile_library"]

SOURCES = Path(__file__).resolve().parent
# File name of the library, which `native/__init__.py` has too. It names no version of Python, because the library works
# with all, and it does not end in .so, because Python would take such a file for a module and try to import it.
LIBRARY = {"darwin": "libbnn_itrd.1.dylib", "win32": "bnn_itrd.dll"}.get(sys.platform, "libbnn_itrd.so.1")
# File that is written instead of the library if it cannot be compiled. It says why, and what to do, and
# `native/__init__.py` reads it.
REASON = "not_built.txt"
# -ffp-contract=off: a multiplication and an addition are rounded separately, as in the file's standard operations.
# -fvisibility=hidden: only the entry points are visible (see exports.map), so that two copies of the library in a
# process do not call each other.
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wno-maybe-uninitialized"]
# nodelete: the library stays in memory, because sessions point into it even after their options were freed.
_LINKING = {
    "linux": ["-Wl,-z,nodelete", f"-Wl,--version-script={SOURCES / 'exports.map'}"],
    "win32": ["-static"],  # because other machines do not have MinGW's libstdc++ and threads
}.get(sys.platform, [])
# Windows aligns the stack to 16 bytes, but GCC saves 32-byte registers on it with moves that need 32 (GCC bug 54412).
_SYSTEM = {"win32": ["-Wa,-muse-unaligned-vector-move"]}.get(sys.platform, [])
# Processor -> the sources that are only for it, each with its flags.
_FLAGS_OF: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "avx2.cpp": ["-mavx2", "-mfma"],
        "avx512.cpp": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vpopcntdq"],
    },
    # Without the flag, the compiler's scheduling would keep more values at once than there are registers.
    "aarch64": {"neon.cpp": ["-fno-schedule-insns"]},
}


def _sources(machine: str) -> dict[Path, list[str]]:
    """Returns the C++ files to compile for a kind of processor, such as "x86_64", each with its additional flags.

    Raises RuntimeError if there is no native code for it.
    """
    if machine not in _FLAGS_OF:
        raise RuntimeError(f"there is no native code for {machine}, only for {' and '.join(_FLAGS_OF)}")
    of_one = {name for flags in _FLAGS_OF.values() for name in flags}
    mine = _FLAGS_OF[machine]
    paths = sorted(SOURCES.glob("*.cpp"))
    return {path: mine.get(path.name, []) for path in paths if path.name in mine or path.name not in of_one}


def compile_library(folder: Path, *, flags: tuple[str, ...] = (), name: str = LIBRARY) -> Path:
    """Compiles the native library from the sources in this file's folder and returns its path, `folder / name`.

    The compiler is the one that the environment variable CXX names, or c++. A cross compiler makes the library for the
    processor that it compiles for. flags: further flags for compiling and linking.
    Raises RuntimeError with the compiler's message if it fails; an older library at that path then stays.
    """
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    with tempfile.TemporaryDirectory() as scratch:

        def run(command: list[str]) -> str:
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except OSError as error:
                raise RuntimeError(f"the C++ compiler {command[0]!r} cannot be started: {error}") from error
            if done.returncode:
                raise RuntimeError(f"{shlex.join(command)}\n{done.stderr.strip()}")
            return done.stdout

        def compile_one(source: Path, own: list[str]) -> str:
            target = os.path.join(scratch, f"{source.stem}.o")
            run([*compiler, *_FLAGS, *_SYSTEM, *own, *flags, "-c", str(source), "-o", target])
            return target

        machine = run([*compiler, "-dumpmachine"]).partition("-")[0].replace("arm64", "aarch64")  # aarch64-linux-gnu
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sources = _sources(machine)
            objects = list(pool.map(compile_one, sources, sources.values()))
        folder.mkdir(parents=True, exist_ok=True)
        # The library is linked under another name and then renamed, so that running processes keep the old one.
        fresh = folder / f".{name}.{os.getpid()}"
        try:
            run([*compiler, "-shared", *_LINKING, *flags, *objects, "-o", str(fresh)])
            # A library with a sanitizer, or for another processor, cannot be loaded here.
            if not flags and machine == platform.machine().lower().replace("arm64", "aarch64"):
                ctypes.CDLL(str(fresh)).RegisterCustomOps  # noqa: B018
            os.replace(fresh, folder / name)
        finally:
            fresh.unlink(missing_ok=True)
    return folder / name


def _reason(error: Exception) -> str:
    """Returns a line for the user about an error of `compile_library`: what was wrong, what follows, and what to do."""
    lines = str(error).splitlines() or [type(error).__name__]
    why = next((line for line in lines if "error: " in line), lines[0]).strip()
    return (
        f"{why}. Without the library, binary networks run with the same results, but 2 to 8 times slower. To compile "
        "it, a C++17 compiler on Linux is needed (`apt install g++`, or set the environment variable CXX to one): then "
        "install again, with --force-reinstall --no-deps"
    )


class BuildPy(build_py):
    """The setuptools command that copies the package's modules; it also compiles the native library.

    If the library cannot be compiled, the package is installed without it and a file says why.
    """

    @property
    def native_package(self) -> str:
        """Name of the package with the library: `bnn_itrd_runtime.native` or `bnn_itrd.export.runtime.native`."""
        return next(str(name) for name in self.packages if name.endswith("runtime.native"))

    def run(self) -> None:
        super().run()
        folder = self.native_folder()
        try:
            compile_library(folder)
            with contextlib.suppress(OSError):
                (folder / REASON).unlink(missing_ok=True)
        except (RuntimeError, OSError, AttributeError) as error:
            reason = _reason(error)
            self.warn(f"without the native library: {reason}")
            # A library from older sources must not stay there, because it would be used with the new modules.
            with contextlib.suppress(OSError):
                (folder / LIBRARY).unlink(missing_ok=True)
                (folder / REASON).write_text(reason + "\n", encoding="utf-8")

    def native_folder(self) -> Path:
        """Returns the folder for the compiled library: in the wheel or, if editable, in the checkout."""
        return SOURCES.parent if self.editable_mode else Path(self.build_lib, *self.native_package.split("."))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs: list[str] = super().get_outputs(include_bytecode)
        folder = Path(self.build_lib, *self.native_package.split("."))
        return [*outputs, *(str(path) for name in (LIBRARY, REASON) if (path := folder / name).exists())]


class BdistWheel(bdist_wheel):
    """The setuptools command that makes a wheel; a wheel with the native library gets a name for this platform alone.

    By its name it fits any Python 3. Without the library the wheel is for any platform. With a cross compiler, the
    environment variable _PYTHON_HOST_PLATFORM names the platform.
    """

    def get_tag(self) -> tuple[str, str, str]:
        tag: tuple[str, str, str] = super().get_tag()
        build: Any = self.get_finalized_command("build_py")
        if not Path(build.build_lib, *build.native_package.split("."), LIBRARY).exists():
            return tag
        self.root_is_pure = False
        name = self.plat_name or sysconfig.get_platform()
        return "py3", "none", name.replace("-", "_").replace(".", "_").lower()
