"""The native library under malformed operators, and compiled with the address and undefined-behaviour sanitizers.

The two programs run in processes of their own: `operators.py` inside onnxruntime, `kernels.py` without it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["compile_sanitized", "open_operators", "operator_files", "run_kernels", "why_no_sanitizers"]

_HERE = Path(__file__).resolve().parent
_SOURCES = _HERE.parents[1] / "export" / "runtime" / "native" / "src"
_FLAGS = "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g1", "-O1"
# The second so that exceptions are there before the first looks.
_RUNTIMES = "libasan.so", "libstdc++.so.6"
_OPTIONS = "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:max_allocation_size_mb=2048"


@functools.cache
def _runtimes() -> list[str]:
    """The sanitizers' libraries; empty where the compiler has none."""
    found = []
    for name in _RUNTIMES:
        try:
            done = subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True)
        except OSError:
            return []
        found.append(done.stdout.strip())
    return found if all(Path(file).is_file() for file in found) else []


def why_no_sanitizers() -> str:
    """Why the library cannot be compiled with the sanitizers here; an empty text where it can."""
    return "" if _runtimes() else "there is no c++ with libasan here"


def compile_sanitized(folder: Path) -> Path:
    """Compiles the native library with the sanitizers into a folder; returns its file."""
    code = (
        f"import sys; sys.path.insert(0, {str(_SOURCES)!r}); from pathlib import Path; import building;"
        f"building.compile_library(Path({str(folder)!r}), flags={_FLAGS!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=1200)
    return folder / "libbnn_itrd.so.1"


def operator_files(folder: Path) -> list[Path]:
    """Writes files in which every family of operators stands, chained and not."""
    from bnn_itrd.export.runtime.format import FLOAT_CONVOLUTIONS, POOLINGS, SIGNS
    from faults.networks import good_chain, network

    files: list[Path] = []
    nets = [good_chain(), *(n for n in (network(seed) for seed in range(60)) if "outside" not in n.inputs)]
    seen: set[str] = set()
    for i, net in enumerate(nets):
        kinds = {node.op_type for node in net.nodes}
        if i > 2 and kinds <= seen:
            continue
        seen |= kinds
        for chained in (False, True):
            files.append(folder / f"{i}{chained}.onnx")
            files[-1].write_bytes(net.model(chained=chained).SerializeToString())
    assert {*POOLINGS, *SIGNS} <= seen and sum(kind in FLOAT_CONVOLUTIONS for kind in seen) > 5
    assert any("RPReLU" in kind for kind in seen)
    assert any(kind.startswith("Grouped") for kind in seen) and "BinaryConvThreshold" in seen
    return files


def _run(program: str, arguments: Sequence[object], *, sanitized: bool, timeout: float, **more: str) -> str:
    """What a program printed last. Raises AssertionError, with its last words, where it did not end well."""
    environment = {**os.environ, **more}
    if sanitized:
        environment |= {"LD_PRELOAD": ":".join(_runtimes()), "ASAN_OPTIONS": _OPTIONS}
    command = [sys.executable, str(_HERE / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    if done.returncode:
        raise AssertionError(f"{program} {arguments} ended with {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1]


def open_operators(
    library: Path | None,
    files: Sequence[Path],
    count: int,
    *,
    seed: int = 0,
    sanitized: bool = False,
    kernel: str | None = None,
    timeout: float = 600,
) -> tuple[int, int]:
    """(how many ran, how many were refused) of so many malformed models, inside onnxruntime with the library.

    kernel: the family of kernels, the best by default. Raises AssertionError where the process died.
    """
    more = {} if kernel is None else {"BNN_ITRD_KERNEL": kernel}
    arguments = [library, seed, count, int(sanitized), *files]
    ran, refused = _run("operators.py", arguments, sanitized=sanitized, timeout=timeout, **more).split()
    return int(ran), int(refused)


def run_kernels(library: Path, kernels: Sequence[str], count: int, *, seed: int = 0, timeout: float = 600) -> int:
    """Runs so many random convolutions through every kernel family of a sanitized library, which must agree.

    Returns how many. Raises AssertionError where they do not, or a sanitizer spoke.
    """
    arguments = [library, ",".join(kernels), count, seed]
    return int(_run("kernels.py", arguments, sanitized=True, timeout=timeout))
