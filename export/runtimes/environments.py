"""Virtual environments for the programs that run exported files; `setup` makes one, `call` runs a script in one."""

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
# Lines of pip's output that begin so are shown as progress; if pip fails, its errors are shown too.
_PROGRESS = ("Collecting", "Downloading", "Installing", "Successfully")
# Files are made with this umask instead of the user's, because `check_ownership` refuses files that others may write.
_UMASK = 0o022
_UNREACHABLE = ("name resolution", "NewConnectionError", "Failed to establish", "timed out", "ProxyError", "SSLError")


@dataclass(frozen=True)
class Runtime:
    """A program that runs one kind of exported file, with what its virtual environment needs.

    requirements: packages for pip; bare: packages that pip installs without their dependencies; probe: Python code that
    raises an error in an environment that cannot be used; option: the command-line option that names an interpreter.
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


# LCE's library is loaded by its path because importing its package would import TensorFlow.
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
        raise ValueError(f"the runtime must be one of {', '.join(RUNTIMES)}, got {name!r}")
    return RUNTIMES[name]


def folder(name: str) -> Path:
    """Returns the folder for a runtime's environment, which need not exist: bnn_itrd/NAME-HASH in the user's cache.

    The cache is $XDG_CACHE_HOME, by default ~/.cache. The hash depends on the requirements, the Python version and the
    machine, so a change of one of them leads to a new environment. Raises ValueError on an unknown name.

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
    """Returns words for an error message that say how a process ended, from its return code."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _way_out(runtime: Runtime) -> str:
    return f"name the python of an environment that has {runtime.packages()} ({runtime.option})"


def _check(runtime: Runtime, python: Path) -> None:
    """Raises ExportError, with the reason, if the interpreter `python` cannot be used for the runtime."""
    try:
        # With -I, packages are looked for in the environment only, and not in PYTHONPATH or the working folder.
        done = subprocess.run(
            [str(python), "-I", "-c", runtime.probe], capture_output=True, text=True, timeout=300, umask=_UMASK
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExportError(f"{python} does not run: {error}") from error
    if done.returncode:
        why = _last_lines(done.stderr, 1) or _died(done.returncode)
        raise ExportError(f"{python} cannot be used as runtime {runtime.name}: {why}; install {runtime.packages()}")


def find(name: str, *, python: str | os.PathLike[str] | None = None) -> Path | None:
    """Returns the Python interpreter of a runtime's environment; None if `setup` has not made the environment yet.

    python: an interpreter to check and return instead. Raises ValueError on an unknown name, ExportError if `python` is
    missing or lacks a package, and if other users can have changed the environment (`check_ownership`).

    >>> find("lce", python="/no/such/python")
    Traceback (most recent call last):
    bnn_itrd.export.runtime.errors.ExportError: there is no Python interpreter /no/such/python: check its path
    """
    runtime = _runtime(name)
    if python is None:
        made = _python_of(folder(name))
        check_ownership(folder(name))
        # is_file is False for a link to an interpreter that was removed, as by an update of Python.
        return made if made.is_file() else None
    # The link is not resolved, because an environment's python is a link and finds its packages by the link's path.
    named = Path(python).expanduser().absolute()
    if not named.is_file():
        raise ExportError(f"there is no Python interpreter {named}: check its path")
    _check(runtime, named)
    return named


def _pip(runtime: Runtime, python: Path, arguments: list[str], report: Callable[[str], None]) -> None:
    """Runs ``pip install`` in the new environment; calls `report` with lines of progress. Raises ExportError."""
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
        why = f"it has no wheel for Python {version} on {platform.system()} {platform.machine()}: use another Python"
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
    report(f"{runtime.name}: checking the new environment")
    _check(runtime, python)


def setup(name: str, *, report: Callable[[str], None] = print) -> Path:
    """Makes a runtime's virtual environment in the user's cache folder, if it is not there; returns its interpreter.

    The environment is built under a temporary name and renamed when it works, so that an incomplete one is never used
    and two processes may build it at the same time. report: called with each line of progress.
    Raises ValueError on an unknown name, OSError if the cache folder cannot be written, ExportError if pip or the new
    environment fails, or other users can have changed an existing one (`check_ownership`).

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
    # An environment can be renamed, because bin/python finds site-packages relative to itself. Its scripts, such as
    # bin/pip, contain the old path, but they are not used.
    building = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
    report(f"{name}: making a virtual environment in {target}")
    try:
        _build(runtime, building, report)
        if target.exists() and not python.is_file():
            # The old environment's interpreter was removed, as by an update of Python, so it cannot run any more.
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
    """Runs a script's ``main(arrays, arguments) -> (arrays, results)`` in another interpreter; returns its result.

    python: the interpreter; arrays: NumPy arrays by name; arguments, results: values that JSON can hold; timeout: in
    seconds, None for no limit. The script can import the packages of that interpreter, but not bnn_itrd.
    Raises ValueError on arguments that JSON cannot hold, ExportError if the interpreter does not start, or the script
    fails, is killed, takes too long, or leaves results that cannot be read.

    >>> call("/path/to/python", Path("script.py"), arguments={"repeats": 3})  # doctest: +SKIP
    ({}, {'milliseconds': 1.2})
    """
    with tempfile.TemporaryDirectory(prefix="bnn_itrd-") as name:
        place = Path(name)
        np.savez(place / "arrays.npz", **dict(arrays or {}))  # type: ignore[arg-type]
        try:
            (place / "arguments.json").write_text(json.dumps(dict(arguments or {})))
        except TypeError as error:
            raise ValueError(f"arguments must be values that JSON can hold: {error}") from error
        command = [str(python), "-I", str(_CHILD), str(script), str(place)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
                umask=_UMASK,
            )  # fmt: skip
        except OSError as error:
            raise ExportError(f"{python} does not run: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"{script.name} took too long and was stopped after {timeout:g} seconds") from error
        if done.returncode:
            last = _last_lines(done.stderr)
            raise ExportError(f"{script.name} {_died(done.returncode)} in {python}" + (f":\n{last}" if last else ""))
        try:
            with np.load(place / "results.npz", allow_pickle=False) as loaded:
                outputs = {key: loaded[key] for key in loaded.files}
            results: dict[str, Any] = json.loads((place / "results.json").read_text())
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ExportError(f"the results of {script.name} cannot be read ({error}): is the disk full?") from error
        return outputs, results
