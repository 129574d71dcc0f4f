"""Chooses the precision of a training (float32 or mixed with bfloat16) for the setting ``train.precision: auto``."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.train import FabricConfig
from bnn_itrd.errors import UserError
from bnn_itrd.export.runtime.machine import cpu_features
from bnn_itrd.yaml_files import read_yaml

__all__ = ["Choice", "choose_precision", "settle_precision"]

# The names of instruction sets that compute with bfloat16: two of x86, and ARM's.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Choice:
    """A precision, under Lightning's name for it, and the reason why it was chosen, as text for the output."""

    precision: Precision
    why: str


def choose_precision(fabric: FabricConfig, folders: Iterable[Path] = ()) -> Choice:
    """Chooses the precision of a training for ``train.precision: auto``, and returns it with the reason.

    A training that is continued keeps its precision, which is read from the first of `folders` with a checkpoint.
    Otherwise a CUDA device with bfloat16 gets bf16-mixed. A CPU gets bf16-mixed if it has instructions for bfloat16
    (avx512_bf16, AMX, or ARM's bf16), and if a small convolution is then faster than in float32. Without these
    instructions bfloat16 would take about ten times as long. Every other device gets 32-true, which is float32.

    >>> choose_precision(FabricConfig(accelerator="cpu")).precision in ("32-true", "bf16-mixed")
    True
    """
    for folder in folders:
        if (recorded := _recorded(folder)) is not None:
            return Choice(recorded, f"the precision with which the training in {folder} began")
    if fabric.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bf16-mixed", "the GPU has bfloat16")
        return Choice("32-true", "the GPU has no bfloat16")
    on_cpu = fabric.accelerator == "cpu" or (fabric.accelerator == "auto" and not torch.backends.mps.is_available())
    if not on_cpu:
        return Choice("32-true", "bfloat16 is chosen only on a CUDA GPU or a CPU")
    names = sorted(cpu_features() & _BFLOAT16)
    if not names:
        return Choice("32-true", "this processor has no bfloat16 instructions")
    if fabric.devices * fabric.num_nodes > 1:
        # Nothing is measured, because the processes could then choose differently.
        return Choice("bf16-mixed", f"this processor has {', '.join(names)}")
    ratio = _seconds(torch.float32) / _seconds(torch.bfloat16)
    why = f"a convolution in bfloat16 takes {1 / ratio:.2f} of float32's time on this processor ({', '.join(names)})"
    return Choice("bf16-mixed" if ratio > 1 else "32-true", why)


def settle_precision(
    config: RunConfig, *, teacher: Iterable[Path], students: Iterable[Path]
) -> tuple[RunConfig, dict[str, str]]:
    """Replaces the precision 'auto' in a run's configuration by the one that is chosen.

    Returns the configuration, and for each changed part (teacher_train, train) a text with the precision and the
    reason. `teacher` and `students` are the folders in which the trainings may already have begun.

    >>> config, lines = settle_precision(RunConfig(), teacher=[], students=[])
    >>> config.train.precision, lines
    ('32-true', {})
    """
    settled, lines = {}, {}
    for field, folders in (("teacher_train", teacher), ("train", students)):
        train = getattr(config, field)
        if train.precision == "auto":
            choice = choose_precision(config.fabric, folders)
            settled[field] = dataclasses.replace(train, precision=choice.precision)
            lines[field] = f"{choice.precision}, {choice.why}"
    return dataclasses.replace(config, **settled), lines


def _recorded(folder: Path) -> Precision | None:
    """Returns the precision with which the training in a folder began, or None if the folder has no checkpoint."""
    if not (folder / "last.pt").is_file():
        return None
    try:
        recorded = read_yaml(folder / "config.yaml")["train"]["precision"]
    except (UserError, KeyError, TypeError):
        return None  # a damaged folder is reported later, when the training begins
    return next((known for known in get_args(Precision) if known == recorded), None)


@functools.cache
def _seconds(dtype: torch.dtype) -> float:
    """Returns how many seconds a small convolution takes in this dtype, forward and backward, the shortest of four."""
    images = torch.ones(32, 64, 16, 16, dtype=dtype, requires_grad=True)
    weight = torch.ones(64, 64, 3, 3, dtype=dtype, requires_grad=True)
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        F.conv2d(images, weight, padding=1).sum().backward()
        times.append(time.perf_counter() - begin)
    return min(times)
