"""A record of the environment in which numbers were measured: versions, processor, device."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from bnn_itrd.export.runtime.machine import cpu_name

__all__ = ["environment"]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Returns the git commit of this package's source, with a '+' if files differ from it; None without git."""
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
    """Returns versions, platform, processor, device, number of threads and git commit, as plain values for JSON.

    >>> environment(torch.device("cpu"))["device"]
    'cpu'
    """
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
