"""A description of the machine: processor, instruction sets, version of onnxruntime, native kernel."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["cpu_features", "cpu_name", "describe_machine"]

_FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_vpopcntdq", "asimd", "asimddp")


def cpu_name() -> str:
    """Returns the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_features() -> frozenset[str]:
    """Returns the processor's instruction sets by Linux's names (avx2, avx512_bf16, asimd); none on other systems."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()
    )


def describe_machine() -> dict[str, str]:
    """Returns the processor, its instruction sets that kernels use, its cores, onnxruntime's version and the kernel."""
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
