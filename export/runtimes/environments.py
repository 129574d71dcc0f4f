"""External runtimes in virtual environments of their own, which are made on request and called as a subprocess."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.runtimes.ownership import check_ownership

__all__ = ["RUNTIMES", "Runtime", "call", "find", "folder", "setup"]

_CHILD = Path(__file__).with_name("child.py")
# The lines of pip's output that are shown as progress; all are kept for the message of a failure.
_PROGRESS = ("Collecting", "Downloading", "Installing", "Successfully")
# Files are made with this umask, whatever the user's is: `check_ownership` refuses files that others may write.
_UMASK = 0o022
_UNREACHABLE = ("name resolution", "NewConnectionError", "Failed to establish", "timed out", "ProxyError", "SSLError")


@dataclass(frozen=True)
class Runtime:
    """An external runtime, which runs one kind of file.

    requirements: for pip; bare: requirements that are installed without their dependencies; probe: Python code that
    fails where the environment cannot be used; option: the command line's option for an existing interpreter.
    """

    name: str
    requirements: tuple[str, ...]
    probe: str
    bare: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        return f"--{self.name}-python"

    def packages(self) -> str:
        return ", ".join((*self.bare, *self.requirements))


# The interpreter's library is loaded by its path because importing the package would import TensorFlow.
_LCE_PROBE = """
import importlib.util, pathlib, numpy
if int(numpy.__version__.split(".")[0]) >= 2:
    raise ImportError(f"numpy {numpy.__version__}: larq-compute-engine needs numpy<2")
spec = importlib.util.find_spec("larq_compute_engine")
if spec is None:
    raise ImportError("No module named 'larq_compute_engine'")
library = pathlib.Path(spec.origin).parent / "tflite" / "python" / "interpreter_wrapper_lite.so"
spec = importlib.util.spec_from_file_location("interpreter_wrapper_lite", library)
importlib.util.module_from_spec(spec)
"""

_FPGA_PROBE = """
import onnx, onnxruntime
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
"""

RUNTIMES = {
    "lce": Runtime("lce", ("numpy<2",), _LCE_PROBE, bare=("larq-compute-engine>=0.16,<1",)),
    "fpga": Runtime("fpga", ("qonnx>=1.0,<2", "onnx>=1.17,<1.23", "onnxruntime>=1.20"), _FPGA_PROBE),
}


def _runtime(name: str) -> Runtime:
    if name not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {name!r}")
    return RUNTIMES[name]


def folder(name: str) -> Path:
    """Returns the folder of the runtime's environment, made or not: $XDG_CACHE_HOME (~/.cache) / bnn_itrd / NAME-HASH.

    The hash depends on the requirements, the Python version and the machine, so a change of one makes a new
    environment. Raises ValueError on an unknown name.

    >>> folder("lce").name.startswith("lce-")
    True
    """
    runtime = _runtime(name)
    identity = [runtime.bare, runtime.requirements, sys.version_info[:2], platform.system(), platform.machine()]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that relative paths are ignored.
    cache = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return cache / "bnn_itrd" / f"{name}-{digest}"


def _python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def _last_lines(text: str, count: int = 6) -> str:
    return "\n".join([line for line in text.strip().splitlines() if line.strip()][-count:])


def _died(code: int) -> str:
    """Returns how a process ended, from its return code."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _way_out(runtime: Runtime) -> str:
    return f"name the python of an environment that has {runtime.packages()} ({runtime.option})"


def _check(runtime: Runtime, python: Path) -> None:
    """Raises ExportError, with the reason, where the interpreter cannot be used for the runtime."""
    try:
        # -I: a package that the environment lacks must not be found by PYTHONPATH or in the working folder.
        done = subprocess.run(
            [str(python), "-I", "-c", runtime.probe], capture_output=True, text=True, timeout=300, umask=_UMASK
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"{python} does not run: {error}") from error
    if done.returncode:
        why = _last_lines(done.stderr, 1) or _died(done.returncode)
        raise ExportError(f"{python} cannot serve as runtime {runtime.name}: {why}; it needs {runtime.packages()}")


def find(name: str, *, python: str | os.PathLike[str] | None = None) -> Path | None:
    """Returns a runtime's interpreter: `python`, or by default the one that `setup` made; None where there is none.

    Raises ValueError on an unknown name, ExportError on a named interpreter that is missing or lacks a package, and on
    an environment that others than the user and root may have changed (`check_ownership`).

    >>> find("lce", python="/no/such/python")
    Traceback (most recent call last):
    bnn_itrd.export.runtime.errors.ExportError: no such interpreter: /no/such/python
    """
    runtime = _runtime(name)
    if python is None:
        made = _python_of(folder(name))
        check_ownership(folder(name))
        # A link to an interpreter that was removed is not a file.
        return made if made.is_file() else None
    # Links are not followed: an environment's python is a link, and by its path it finds the environment's packages.
    named = Path(python).expanduser().absolute()
    if not named.is_file():
        raise ExportError(f"no such interpreter: {named}")
    _check(runtime, named)
    return named


def _pip(runtime: Runtime, python: Path, arguments: list[str], report: Callable[[str], None]) -> None:
    """Runs pip in the new environment and reports its progress line by line. Raises ExportError where it fails."""
    command = [str(python), "-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "2", "--progress-bar", "off", "--only-binary", ":all:", *arguments]
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=_UMASK
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.lstrip().startswith(_PROGRESS):
                report(f"{runtime.name}: {line.strip()}")
    if process.returncode == 0:
        return
    text = "\n".join(lines)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if any(mark in text for mark in _UNREACHABLE):
        why = "the package index cannot be reached: check the network (or pip's index settings)"
    elif "No matching distribution" in text:
        why = f"there is no wheel of it for Python {version} on {platform.system()} {platform.machine()}"
    else:
        why = f"pip {_died(process.returncode)}"
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    raise ExportError(
        f"runtime {runtime.name}: {' '.join(a for a in arguments if a[0] != '-')} could not be installed: {why}; "
        f"or {_way_out(runtime)}\n{_last_lines(chr(10).join(errors), 3)}"
    )


def _build(runtime: Runtime, place: Path, report: Callable[[str], None]) -> None:
    command = [sys.executable, "-I", "-m", "venv", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, umask=_UMASK)
    if done.returncode:
        raise ExportError(
            f"runtime {runtime.name}: no virtual environment can be made with {sys.executable} (Debian and Ubuntu have "
            f"venv in a package of its own, python3-venv); or {_way_out(runtime)}\n{_last_lines(done.stdout, 2)}"
            f"{_last_lines(done.stderr, 2)}"
        )
    python = _python_of(place)
    if runtime.bare:
        _pip(runtime, python, ["--no-deps", *runtime.bare], report)
    _pip(runtime, python, list(runtime.requirements), report)
    report(f"{runtime.name}: trying it")
    _check(runtime, python)


def setup(name: str, *, report: Callable[[str], None] = print) -> Path:
    """Makes the runtime's virtual environment in the user's cache folder, unless it is there; returns its python.

    It is built under a temporary name and moved to its place when it works: so it is whole or absent, and two processes
    may make it at the same time. report: called with each line of progress.
    Raises ValueError on an unknown name, OSError where the cache folder cannot be written, ExportError where pip or the
    new environment fails, and where others than the user and root may have changed an existing one (`check_ownership`).

    >>> setup("fpga")  # doctest: +SKIP
    PosixPath('/home/user/.cache/bnn_itrd/fpga-1c70cf6a02/bin/python')
    """
    runtime = _runtime(name)
    target = folder(name)
    python = _python_of(target)
    check_ownership(target)
    if python.is_file():
        report(f"{name}: {target} is there already")
        return python
    if not target.parent.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.parent.chmod(0o777 & ~_UMASK)
    # The environment can be moved because bin/python and site-packages are found relative to it. Its scripts, pip
    # among them, contain its path, but they are not used.
    building = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    report(f"{name}: making a virtual environment in {target}")
    try:
        _build(runtime, building, report)
        if target.exists() and not python.is_file():
            # Its interpreter was removed (by an update of Python), so it cannot run any more.
            shutil.rmtree(target)
        try:
            building.rename(target)
        except OSError:
            if not python.is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _check(runtime, python)
    report(f"{name}: ready")
    return python


def call(
    python: str | os.PathLike[str],
    script: Path,
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    arguments: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Runs ``main(arrays, arguments) -> (arrays, results)`` of a script in another interpreter; returns its result.

    arrays: by name, of numbers; arguments and results: values that JSON can hold. They are passed as files in a
    temporary folder. The script may import the packages of that interpreter, but not bnn_itrd. timeout: seconds.
    Raises ValueError on arguments that JSON cannot hold, ExportError where the interpreter does not start, or the
    script fails, is killed, takes too long, or leaves results that cannot be read.

    >>> call("/path/to/python", Path("script.py"), arguments={"repeats": 3})  # doctest: +SKIP
    ({}, {'milliseconds': 1.2})
    """
    with tempfile.TemporaryDirectory(prefix="bnn_itrd-") as name:
        place = Path(name)
        np.savez(place / "arrays.npz", **dict(arrays or {}))  # type: ignore[arg-type]
        try:
            (place / "arguments.json").write_text(json.dumps(dict(arguments or {})))
        except TypeError as error:
            raise ValueError(f"arguments must hold what JSON can: {error}") from error
        command = [str(python), "-I", str(_CHILD), str(script), str(place)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
                umask=_UMASK,
            )  # fmt: skip
        except OSError as error:
            raise ExportError(f"{python} does not run: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"{script.name} was stopped after {timeout:g} seconds") from error
        if done.returncode:
            last = _last_lines(done.stderr)
            raise ExportError(f"{script.name} {_died(done.returncode)} in {python}" + (f":\n{last}" if last else ""))
        try:
            with np.load(place / "results.npz", allow_pickle=False) as loaded:
                outputs = {key: loaded[key] for key in loaded.files}
            results: dict[str, Any] = json.loads((place / "results.json").read_text())
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ExportError(f"{script.name} left no results that can be read ({error}): is the disk full?") from error
        return outputs, results
