"""Trains as `bnn-itrd train` does, for a GPU that is there for minutes: what such a time cannot afford is left out.

    python benchmarks/gtrain.py train RECIPE --member NAME --out DIR [--FIELD VALUE ...]

Three things are changed, and every number stays as it is: the evaluation in float32 is not compiled, last.pt is written
every 90 seconds and at the end instead of after every epoch, and nothing is exported or compared at the end.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.fabric  # noqa: F401  # it replaces torch.compile: before we do
import torch

import bnn_itrd.runs.report as report
from bnn_itrd.cli import main
from bnn_itrd.training.files import TrainingFiles
from bnn_itrd.training.objective import Objective

_SECONDS = 90.0


def _patch() -> None:
    """Replaces what is named above, in this process."""
    compiled, save, last = torch.compile, TrainingFiles.save, [time.monotonic()]

    def compile_the_step_alone(model: Any = None, **options: Any) -> Any:
        return compiled(model, **options) if isinstance(model, Objective) else model

    def save_now_and_then(self: TrainingFiles, trainer: Any) -> None:
        if trainer.epoch == trainer.config.epochs or time.monotonic() - last[0] > _SECONDS:
            save(self, trainer)
            last[0] = time.monotonic()

    torch.compile = compile_the_step_alone
    TrainingFiles.save = save_now_and_then  # type: ignore[method-assign]
    report.report_run = lambda *_, **__: None


if __name__ == "__main__":
    torch.backends.cudnn.benchmark = True
    _patch()
    started = time.monotonic()
    code = main(sys.argv[1:])
    print(f"done in {time.monotonic() - started:.1f} s, exit status {code}", flush=True)
    sys.exit(code)
