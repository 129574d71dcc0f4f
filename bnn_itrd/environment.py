"""Where numbers were obtained: versions, processor, device."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = ["cpu_features", "cpu_name", "environment"]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor, as the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_features() -> frozenset[str]:
    """Returns the processor's instruction sets as Linux calls them (avx2, avx512_bf16, asimd); elsewhere none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.partition(":")[2].split()
    )


def _commit() -> str | None:
    """The commit of the source tree this runs from, '+' where it is changed; None outside a checkout of ours."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, platform, processor, device, threads, commit: plain values for JSON."""
    packages = ("torch", "torchvision", "numpy", "lightning", "onnx", "onnxruntime", "onnxscript")
    return {
        "bnn_itrd": _version("bnn-itrd"),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }
