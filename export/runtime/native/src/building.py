"""Compiling the native library: `compile_library(folder)`, and the setuptools commands that do it while installing.

No part of the installed package: setuptools finds it by its path, before there is a package.
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
except ImportError:  # setuptools before 70.1 takes it from wheel
    from wheel.bdist_wheel import bdist_wheel

__all__ = ["LIBRARY", "REASON", "BdistWheel", "BuildPy", "compile_library"]

SOURCES = Path(__file__).resolve().parent
# No Python version in the name; and not the suffix of an extension module, which the import system would try to import.
# As `native/__init__.py` calls it.
LIBRARY = {"darwin": "libbnn_itrd.1.dylib", "win32": "bnn_itrd.dll"}.get(sys.platform, "libbnn_itrd.so.1")
# What stands in the library's place where there is none: why, and what to do. `native/__init__.py` reads it out.
REASON = "not_built.txt"
# A multiplication and an addition are two roundings, as in the file's standard operations. Nothing but the entry points
# is visible (see exports.map too), so two copies of the library in a process do not mix.
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wno-maybe-uninitialized"]
# nodelete: sessions keep pointers into the library, whatever becomes of the options it was registered with.
_LINKING = {
    "linux": ["-Wl,-z,nodelete", f"-Wl,--version-script={SOURCES / 'exports.map'}"],
    "win32": ["-static"],  # of MinGW: neither its libstdc++ nor its threads are on other machines
}.get(sys.platform, [])
# Windows aligns a stack to 16 bytes, and GCC keeps registers of 32 on it with moves that want 32 (its bug 54412).
_SYSTEM = {"win32": ["-Wa,-muse-unaligned-vector-move"]}.get(sys.platform, [])
# Sources of one kind of processor, and their flags.
_FLAGS_OF: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "avx2.cpp": ["-mavx2", "-mfma"],
        "avx512.cpp": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vpopcntdq"],
    },
    # The compiler's own order of the sums' loop needs more registers than there are.
    "aarch64": {"neon.cpp": ["-fno-schedule-insns"]},
}


def _sources(machine: str) -> dict[Path, list[str]]:
    """The sources for this kind of processor, each with the flags it has beside those of all.

    Raises RuntimeError where there is no native code for it.
    """
    if machine not in _FLAGS_OF:
        raise RuntimeError(f"there is no native code for {machine}, but for {' and '.join(_FLAGS_OF)}")
    of_one = {name for flags in _FLAGS_OF.values() for name in flags}
    mine = _FLAGS_OF[machine]
    paths = sorted(SOURCES.glob("*.cpp"))
    return {path: mine.get(path.name, []) for path in paths if path.name in mine or path.name not in of_one}


def compile_library(folder: Path, *, flags: tuple[str, ...] = (), name: str = LIBRARY) -> Path:
    """Compiles the sources beside this file into `folder / name` and returns that path.

    The compiler is the environment variable CXX, or c++; one that compiles for another kind of processor makes the
    library of that one. flags: further ones, for compiling and linking.
    Raises RuntimeError with the compiler's words; an older library stays where it was.
    """
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    with tempfile.TemporaryDirectory() as scratch:

        def run(command: list[str]) -> str:
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except OSError as error:
                raise RuntimeError(f"no C++ compiler: {error}") from error
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
        # Beside its place, so that the last step is a rename: a running process keeps the library it has.
        fresh = folder / f".{name}.{os.getpid()}"
        try:
            run([*compiler, "-shared", *_LINKING, *flags, *objects, "-o", str(fresh)])
            # One with a sanitizer in it does not open everywhere, one for another kind of processor never.
            if not flags and machine == platform.machine().lower().replace("arm64", "aarch64"):
                ctypes.CDLL(str(fresh)).RegisterCustomOps  # noqa: B018
            os.replace(fresh, folder / name)
        finally:
            fresh.unlink(missing_ok=True)
    return folder / name


def _told(error: Exception) -> str:
    """The reason in one line: what is lost, and how to get it."""
    lines = str(error).splitlines() or [type(error).__name__]
    why = next((line for line in lines if "error: " in line), lines[0]).strip()
    return (
        f"{why}. Binary networks run as standard operations, with the same answers and 2 to 8 times slower. The "
        "library takes a C++17 compiler on Linux (`apt install g++`, or one that the environment variable CXX names): "
        "then install again, with --force-reinstall --no-deps"
    )


class BuildPy(build_py):
    """Copies the package's modules, and compiles the library where it can; elsewhere the wheel is one without it."""

    @property
    def native_package(self) -> str:
        """The package that the library belongs to: `bnn_itrd_runtime.native`, or of bnn_itrd the one of its runtime."""
        return next(str(name) for name in self.packages if name.endswith("runtime.native"))

    def run(self) -> None:
        super().run()
        folder = self.native_folder()
        try:
            compile_library(folder)
            with contextlib.suppress(OSError):
                (folder / REASON).unlink(missing_ok=True)
        except (RuntimeError, OSError, AttributeError) as error:
            reason = _told(error)
            self.warn(f"without the native library: {reason}")
            # One from an older version of the sources must not stay behind.
            with contextlib.suppress(OSError):
                (folder / LIBRARY).unlink(missing_ok=True)
                (folder / REASON).write_text(reason + "\n", encoding="utf-8")

    def native_folder(self) -> Path:
        """Where the library goes: into the wheel's tree, or beside the sources of an editable installation."""
        return SOURCES.parent if self.editable_mode else Path(self.build_lib, *self.native_package.split("."))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs: list[str] = super().get_outputs(include_bytecode)
        folder = Path(self.build_lib, *self.native_package.split("."))
        return [*outputs, *(str(path) for name in (LIBRARY, REASON) if (path := folder / name).exists())]


class BdistWheel(bdist_wheel):
    """A wheel for this platform and any Python 3 where the library is in it, else one for any platform.

    Where a compiler for another platform makes the library, the environment variable _PYTHON_HOST_PLATFORM names that.
    """

    def get_tag(self) -> tuple[str, str, str]:
        tag: tuple[str, str, str] = super().get_tag()
        build: Any = self.get_finalized_command("build_py")
        if not Path(build.build_lib, *build.native_package.split("."), LIBRARY).exists():
            return tag
        self.root_is_pure = False
        name = self.plat_name or sysconfig.get_platform()
        return "py3", "none", name.replace("-", "_").replace(".", "_").lower()
