"""Measures what each distiller costs: the time of a training step relative to one without distiller, and memory.

    python benchmarks/losses.py [--network resnet20] [--batches 64 256 1024] [--turns 5] [--out FILE.json]

A step is the forward pass, backward pass and update of a binary student in float32, not compiled, with the default
options of the method. A plain step is one without a distiller. All methods need the forward pass of the teacher (the
same network in full precision), so its time is measured separately and subtracted: the result is
(step - teacher) / plain step. The methods run in turns, and each step is compared with the plain step of the same turn,
so that other work on the machine slows both. The result is the median over the turns; the smallest and the largest are
printed too. `plain again` is a second plain step at the end of each turn, whose difference from 1 is noise. The first
step of each turn only warms up. The images are random, of CIFAR-10's shape; memory banks have 50,000 samples.

`--cpu-time` measures processor time on one thread, for a machine with other work, where wall-clock time is useless.

Memory is the bytes of a distiller's parameters and buffers, and the peak memory of a step above that of a plain step,
with the teacher's activations. `rkd` is left out for batches above 512 on the CPU, as its angles take 16 n^3 bytes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler prints when it starts and stops

import torch
from lightning.fabric import Fabric
from torch import Tensor

from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, TrainConfig
from bnn_itrd.distillers.maps.ft import FTConfig
from bnn_itrd.distillers.maps.vid import VIDConfig
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.environment import environment
from bnn_itrd.runs.networks import build
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.trainer import Trainer

SHAPE, CLASSES, SAMPLES = (3, 32, 32), 10, 50_000
_LARGEST_RKD = 512
PLAIN, AGAIN, TEACHER = "plain", "plain again", "teacher forward"
Batch = tuple[Tensor, Tensor, Tensor]


def _ways() -> dict[str, tuple[DistillConfig, bool]]:
    """Returns the methods to measure, name -> (configuration, whether to time its preparation, not the training)."""
    ways: dict[str, tuple[DistillConfig, bool]] = {PLAIN: (DistillConfig(), False)}
    for name, kind in METHODS.items():
        if kind().only_prepares:  # a method that only acts in its preparation
            ways[f"{name}, its phase"] = DistillConfig(**{name: kind()}), True
        else:
            ways[name] = DistillConfig(**{name: kind()}), False
    ways["ft, its phase"] = DistillConfig(ft=FTConfig()), True
    ways["vid, logits"] = DistillConfig(vid=VIDConfig(form="logits")), False
    ways[AGAIN] = DistillConfig(), False  # last, so that it shows what changes in the course of a turn
    return ways


class Way:
    """One method of training with its own student, teacher and trainer, of which single steps can be run."""

    def __init__(self, network: str, distill: DistillConfig, phase: bool, labels: Tensor, fabric: Fabric) -> None:
        self.fabric = fabric
        torch.manual_seed(0)
        options: dict[str, Any] = {"num_classes": CLASSES, "input_shape": SHAPE}
        student = build(NetworkConfig(network), SchemeConfig(), **options)
        self.teacher = build(NetworkConfig(network), None, **options).to(self.fabric.device).eval()
        self.trainer = Trainer(
            student,
            self.teacher,
            input_shape=SHAPE,
            train=TrainConfig(lr=1e-3),
            distill=distill,
            fabric=self.fabric,
            labels=labels,
        )
        self.trainer.objective.train()
        if phase:
            self.trainer.objective.preparing = tuple(self.trainer.preparation_epochs)
        else:
            self.trainer.end_preparation()

    def step(self, batch: Batch) -> None:
        """Runs one training step."""
        loss, _, _ = self.trainer.step_module(*batch)
        self.fabric.backward(loss)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()

    def look(self, batch: Batch) -> None:
        """Runs the forward pass of the teacher, as a step does."""
        with torch.no_grad():
            self.teacher(batch[0])

    def own_bytes(self) -> int:
        """Returns the bytes of the distillers' parameters and buffers."""
        distillers = self.trainer.objective.distillers
        return sum(t.numel() * t.element_size() for t in (*distillers.parameters(), *distillers.buffers()))


def _seconds(call: Callable[[Batch], None], batch: Batch, steps: int, clock: Callable[[], float]) -> float:
    """Returns the median of the seconds of some calls; one more call before them is not counted."""
    times = []
    for _ in range(1 + steps):
        start = clock()
        call(batch)
        if batch[0].is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - start)
    return statistics.median(times[1:])


def _peak(call: Callable[[Batch], None], batch: Batch) -> int:
    """Returns the peak of the bytes that torch allocates during a call, above those allocated before it."""
    if batch[0].is_cuda:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call(batch)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call(batch)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = itertools.accumulate((event.nbytes() for event in events), initial=0)
    return max(held)


def measure(
    ways: dict[str, Way], batch: Batch, *, turns: int, steps: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Measures the times and peak memory of all methods at one batch size; returns a dict for each method."""
    calls: dict[str, Callable[[Batch], None]] = {name: way.step for name, way in ways.items()}
    calls[TEACHER] = ways[PLAIN].look
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(1 + turns):
        for name, call in calls.items():
            measured = _seconds(call, batch, steps if turn else 1, clock)
            if turn:  # the first turn only fills caches and makes the optimisers' state
                seconds[name].append(measured)
    peaks = {name: _peak(call, batch) for name, call in calls.items()}
    rows: dict[str, Any] = {}
    for name, times in seconds.items():
        shared = [0.0] * turns if name in (PLAIN, AGAIN, TEACHER) else seconds[TEACHER]
        ratios = [(t - s) / p for t, s, p in zip(times, shared, seconds[PLAIN], strict=True)]
        rows[name] = {
            "step_ms": 1000 * statistics.median(times),
            "over_plain": statistics.median(ratios),
            "over_plain_range": [min(ratios), max(ratios)],
            "peak_bytes_over_plain": peaks[name] - peaks[PLAIN],
        }
    return rows


def _print(batch: int, rows: dict[str, Any], own_bytes: dict[str, int]) -> None:
    """Prints the table of one batch size."""
    print(f"\nbatch {batch}: plain step {rows[PLAIN]['step_ms']:.1f} ms\n")
    print(f"{'':16} {'x plain step':>12} {'smallest':>9} {'largest':>8} {'owned MB':>9} {'peak MB':>8}")
    for name, row in rows.items():
        low, high = row["over_plain_range"]
        owned, peak = own_bytes.get(name, 0) / 1e6, row["peak_bytes_over_plain"] / 1e6
        print(f"{name:16} {row['over_plain']:12.2f} {low:9.2f} {high:8.2f} {owned:9.2f} {peak:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--turns", type=int, default=5, help="turns of each method")
    parser.add_argument("--steps", type=int, default=2, help="measured steps in a turn, without the one that warms up")
    parser.add_argument("--cpu-time", action="store_true", help="measure processor time of one thread, on the CPU")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()

    clock = time.process_time if args.cpu_time else time.perf_counter
    fabric = make_fabric(FabricConfig("cpu", threads=1) if args.cpu_time else FabricConfig())
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    ways = {name: Way(args.network, *what, labels, fabric) for name, what in _ways().items()}
    device = fabric.device
    own_bytes = {name: way.own_bytes() for name, way in ways.items()}
    record: dict[str, Any] = {
        "network": args.network,
        "turns": args.turns,
        "clock": "processor" if args.cpu_time else "wall",
        "own_bytes": own_bytes,
        "environment": environment(device),
        "batches": {},
    }
    for size in args.batches:
        images = torch.randn(size, *SHAPE, generator=generator)
        indices = torch.randperm(SAMPLES, generator=generator)[:size]
        batch = (images.to(device), labels[indices].to(device), indices.to(device))
        feasible = {k: way for k, way in ways.items() if k != "rkd" or size <= _LARGEST_RKD or device.type != "cpu"}
        record["batches"][str(size)] = measure(feasible, batch, turns=args.turns, steps=args.steps, clock=clock)
        _print(size, record["batches"][str(size)], own_bytes)
        if args.out is not None:  # after each size, because the largest take long
            args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
