"""What every distiller costs: time of a training step over a plain student's, and memory, in one run.

    python benchmarks/losses.py [--network resnet20] [--batches 64 256 1024] [--turns 5] [--out FILE.json]

A step is forward, backward and update of a binary student, in float32 without compilation, with the defaults of each
method. The forward pass of the teacher (the same network in full precision), which all of them share, is measured
apart and taken off: a step's number is (step - teacher) / plain step. Ways take turns, and each turn's steps are
divided by that turn's plain step, so that what slows the machine slows all of them; the number is the median of the
turns, beside it the smallest and the largest. `plain again` is the plain step once more, at the end of a turn: what
differs from 1 there is noise. Of each turn's steps the first warms up. Random images of CIFAR-10's shape, banks of
50,000 samples.

`--cpu-time` counts processor time on one thread: on a machine that others use too, where wall-clock time says nothing.

Memory: bytes of the parameters and buffers a distiller owns, and the peak of a step over that of a plain one, the
teacher's activations included. `rkd` is not measured beyond a batch of 512 on the CPU: its angles take 16 n^3 bytes.
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

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's start and stop, which it prints otherwise

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
    """Name -> what is learned, and whether the phase before the training is measured."""
    ways: dict[str, tuple[DistillConfig, bool]] = {PLAIN: (DistillConfig(), False)}
    for name, kind in METHODS.items():
        if kind().only_prepares:  # it has nothing but its phase
            ways[f"{name}, its phase"] = DistillConfig(**{name: kind()}), True
        else:
            ways[name] = DistillConfig(**{name: kind()}), False
    ways["ft, its phase"] = DistillConfig(ft=FTConfig()), True
    ways["vid, logits"] = DistillConfig(vid=VIDConfig(form="logits")), False
    ways[AGAIN] = DistillConfig(), False  # last: what changes in the course of a turn shows in it
    return ways


class Way:
    """One way to train, ready to step."""

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
        loss, _, _ = self.trainer.step_module(*batch)
        self.fabric.backward(loss)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()

    def look(self, batch: Batch) -> None:
        """The teacher's part of a step."""
        with torch.no_grad():
            self.teacher(batch[0])

    def own_bytes(self) -> int:
        distillers = self.trainer.objective.distillers
        return sum(t.numel() * t.element_size() for t in (*distillers.parameters(), *distillers.buffers()))


def _seconds(call: Callable[[Batch], None], batch: Batch, steps: int, clock: Callable[[], float]) -> float:
    """Median of the steps, the first one aside."""
    times = []
    for _ in range(1 + steps):
        start = clock()
        call(batch)
        if batch[0].is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - start)
    return statistics.median(times[1:])


def _peak(call: Callable[[Batch], None], batch: Batch) -> int:
    """Largest sum of bytes that torch holds during a call over what it held before."""
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
    """Times, and on CUDA peaks, of all ways at one batch size."""
    calls: dict[str, Callable[[Batch], None]] = {name: way.step for name, way in ways.items()}
    calls[TEACHER] = ways[PLAIN].look
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(1 + turns):
        for name, call in calls.items():
            measured = _seconds(call, batch, steps if turn else 1, clock)
            if turn:  # the first turn fills caches and starts optimisers
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
    parser.add_argument("--turns", type=int, default=5, help="of each way")
    parser.add_argument("--steps", type=int, default=2, help="measured in a turn, beside the one that warms up")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, on the CPU")
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
        if args.out is not None:  # after each size: the largest take long
            args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
