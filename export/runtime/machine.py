"""Describes the machine on which files run and are timed: its processor, and the versions of what runs on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["cpu_features", "cpu_name", "describe_machine"]

# Instruction sets that the native library or onnxruntime makes use of, by Linux's names.
_FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_vpopcntdq", "asimd", "asimddp")


def cpu_name() -> str:
    """Returns the processor's name as the operating system gives it.

    >>> cpu_name()  # doctest: +SKIP
    'AMD EPYC 7763 64-Core Processor'
    """
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_features() -> frozenset[str]:
    """Returns the processor's instruction sets by Linux's names, such as avx2 or asimd; empty on other systems.

    >>> "avx2" in cpu_features()  # doctest: +SKIP
    True
    """
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()
    )


def describe_machine() -> dict[str, str]:
    """Returns facts about the machine as texts by name, which stand below each table of times.

    `features` are the instruction sets that matter for speed. `kernel` is the code of the native library for this
    processor, such as "avx2", or "none" and the reason.

    >>> list(describe_machine())
    ['cpu', 'architecture', 'features', 'cores', 'onnxruntime', 'kernel']
    """
    import onnxruntime

    from . import native

    found = cpu_features()
    reason = native.why_unavailable()
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "features": " ".join(name for name in _FEATURES if name in found) or "unknown",
        "cores": str(os.cpu_count()),
        "onnxruntime": onnxruntime.__version__,
        "kernel": f"none ({reason})" if reason else native.kernel(),
    }
