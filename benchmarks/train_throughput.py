"""Measures the training speed of a binary student in images/s: this project's step, and that of the published scripts.

    python benchmarks/train_throughput.py [--network resnet20] [--batch 256] [--rounds 3] [--out FILE.json]

Trained are a teacher, a ReCU student without a teacher, with KD and with ITRD, and with ITRD also the student that the
results call react-per_conv: RSign, RPReLU, a shortcut around each convolution and full-precision downsampling. On a GPU
the students without KD are also trained with `train.fused_kernels`.

The published way is what the public training scripts of ReCU and ITRD do: float32 without compilation, a DataLoader
with PIL transforms for each image, and one `.item()` for each binary layer and step, on the same device. All rows run
in turns, each in a process of its own, in short blocks of steps, so that other work on the machine slows all. The
first step of a block only warms up; the others are timed together, and the median of the blocks counts. The images
are random, of CIFAR-10's shape, because the speed does not depend on them. At the end the script prints how the time of
a step with ITRD is spent; on a GPU, ``--kernels FILE`` writes which kernels a step of each training runs, and how long
they take.
"""

from __future__ import annotations

import argparse
import atexit
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bnn_itrd.config import DistillConfig, ITRDConfig, KDConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, TrainConfig
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.environment import environment
from bnn_itrd.losses import ITRD
from bnn_itrd.models import observe
from bnn_itrd.quant import BinaryConv2d, set_progress
from bnn_itrd.runs.networks import build
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.trainer import Trainer

SHAPE = (3, 32, 32)
Step = Callable[[], None]
REACT = SchemeConfig(weight="recu", activation="rsign", nonlinearity="rprelu")
# The number of steps whose kernels are listed.
_PROFILED = 10


@dataclass(frozen=True)
class Training:
    """What is trained: a network, binary with `scheme` or in full precision, its losses; fused: with fused kernels."""

    network: NetworkConfig
    scheme: SchemeConfig | None
    distill: DistillConfig
    fused: bool = False


def trainings(name: str, *, fused: bool) -> dict[str, Training]:
    """Returns what is trained, by its name in the table; name: of the network; fused: whether also with kernels."""
    network, itrd = NetworkConfig(name), DistillConfig(itrd=ITRDConfig())
    made = {
        "teacher": Training(network, None, DistillConfig()),
        "student": Training(network, SchemeConfig(), DistillConfig()),
        "student + KD": Training(network, SchemeConfig(), DistillConfig(ce=0.1, kd=KDConfig())),
        "student + ITRD": Training(network, SchemeConfig(), itrd),
        "react-per_conv + ITRD": Training(replace(network, per_conv=True, float_downsample=True), REACT, itrd),
    }
    if fused:
        names = ("student", "student + ITRD", "react-per_conv + ITRD")
        made |= {f"{each}, fused kernels": replace(made[each], fused=True) for each in names}
    return made


def _wait(device: torch.device) -> None:
    """Waits until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Ours:
    """This project's trainer, of which single steps are run: data in a tensor, autocast, channels_last, torch.compile.

    A call runs one training step. With ``marked=True`` it waits for the device after each part of the step, and appends
    the part's seconds to `parts`.
    """

    def __init__(self, what: Training, args: argparse.Namespace, images: Tensor, labels: Tensor):
        train = TrainConfig(
            batch_size=args.batch,
            precision=args.precision,
            compile=args.compile,
            compile_mode=args.compile_mode,
            fused_kernels=what.fused,
            channels_last=True,
        )
        self.fabric = make_fabric(FabricConfig(), precision=train.precision)
        self.device = self.fabric.device
        torch.manual_seed(0)
        self.what = what
        teacher, student = self._build(None), self._build(what.scheme)
        self.trainer = Trainer(
            student, teacher, input_shape=SHAPE, train=train, distill=what.distill, fabric=self.fabric
        )
        self.trainer.objective.train()
        half = torch.full((3,), 0.5)
        self.split = TensorSplit(images, labels, half, half, crop_padding=4, flip=True)
        self.batch, self.graphs = args.batch, self.trainer.forms.uses_cuda_graphs
        self.source = self._batches()
        self.parts: dict[str, list[float]] = {}

    def _build(self, scheme: SchemeConfig | None) -> nn.Module:
        """Returns an untrained network on the device, in full precision if `scheme` is None."""
        network = self.what.network if scheme is not None else self.what.network.of_teacher()
        model = build(network, scheme, num_classes=10, input_shape=SHAPE)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields training batches (images, labels, indices) without end."""
        epoch = 0
        while True:
            yield from self.split.train_batches(self.batch, seed=0, epoch=epoch, device=self.device)
            epoch += 1

    def __call__(self, *, marked: bool = False) -> None:
        """Runs one training step; a GPU may still be at it afterwards."""
        trainer = self.trainer
        last = time.perf_counter()

        def mark(part: str) -> None:
            """Records the seconds since the last mark as those of a part."""
            nonlocal last
            if marked:
                _wait(self.device)
                now = time.perf_counter()
                self.parts.setdefault(part, []).append(now - last)
                last = now

        x, y, index = next(self.source)
        x = x.contiguous(memory_format=torch.channels_last)
        mark("data")
        set_progress(trainer.objective, 0.5)
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        loss, _, _ = trainer.step_module(x, y, index)
        mark("forward")
        self.fabric.backward(loss)
        mark("backward")
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        mark("optimiser")

    def shares(self, turns: int) -> dict[str, float]:
        """Returns the median seconds of each part of a step over some steps.

        The forward passes of the two networks are timed separately, compiled as in the step. The seconds of the losses
        are those of the step's whole forward pass less these two.
        """
        self(marked=True)
        self.parts.clear()
        for _ in range(turns):
            self(marked=True)
        seconds = {part: statistics.median(values) for part, values in self.parts.items()}
        forward = seconds.pop("forward")
        alone = {"teacher forward": self._build(None).eval(), "student forward": self._build(self.what.scheme).train()}
        x, _, _ = next(self.source)
        x = x.contiguous(memory_format=torch.channels_last)
        for part, network in alone.items():
            run = torch.compile(network) if self.trainer.config.compile else network
            times = []
            for _ in range(turns + 1):
                start = time.perf_counter()
                with self.fabric.autocast(), torch.set_grad_enabled(part == "student forward"):
                    run(x)
                _wait(self.device)
                times.append(time.perf_counter() - start)
            seconds[part] = statistics.median(times[1:])
        seconds["losses"] = max(0.0, forward - seconds["teacher forward"] - seconds["student forward"])
        order = ("data", "teacher forward", "student forward", "losses", "backward", "optimiser")
        return {part: seconds[part] for part in order}


class _Pictures(Dataset[tuple[torch.Tensor, int]]):
    """A data set of PIL images with the usual transforms, applied image by image, as the public scripts have it.

    images: uint8 (n, h, w, 3); labels: (n,).
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision import transforms

        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def published(args: argparse.Namespace, images: Tensor, labels: Tensor, *, itrd: bool) -> Step:
    """Returns a function that runs one training step as the public scripts do, on the same student.

    itrd: True: the student also learns from the same teacher by ITRD.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    network = NetworkConfig(args.network)
    student = build(network, SchemeConfig(), num_classes=10, input_shape=SHAPE).to(device).train()
    teacher = build(network, None, num_classes=10, input_shape=SHAPE).to(device).eval()
    seen, taught = observe(student), observe(teacher)
    with torch.no_grad():
        width = taught(torch.zeros(2, *SHAPE, device=device)).representation.shape[1]
    distiller = ITRD(width, width).to(device)
    parameters = [*student.parameters(), *(distiller.parameters() if itrd else [])]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
    pictures = _Pictures(images.permute(0, 2, 3, 1).numpy(), labels.numpy())
    loader = DataLoader(
        pictures,
        args.batch,
        shuffle=True,
        num_workers=args.workers,
        drop_last=True,
        persistent_workers=args.workers > 0,
    )
    layers = [m for m in student.modules() if isinstance(m, BinaryConv2d)]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches (images, labels) without end."""
        while True:
            yield from loader

    source = batches()

    def step() -> None:
        """Runs one training step."""
        x, y = next(source)
        x, y = x.to(device), y.to(device)
        set_progress(student, 0.5)
        for layer in layers:  # ReCU's script copies a number of every layer to the CPU
            layer.weight.abs().mean().item()
        outputs = seen(x)
        loss = F.cross_entropy(outputs.logits, y)
        if itrd:
            with torch.no_grad():
                told = taught(x)
            loss = loss + distiller(outputs.representation, told.representation)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def serve(what: Training | bool, args: argparse.Namespace, pipe: Connection) -> None:
    """Runs in a process of its own, which trains one row of the table: does what is asked over the pipe, and answers.

    what: a training of this project, or the published way, True with ITRD. "steps" runs a block of steps and returns
    the seconds of one; "shares" and "kernels" return how a step's time is spent.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16 * args.batch, *SHAPE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (len(images),), generator=generator)
    step: Step
    if isinstance(what, Training):
        step = Ours(what, args, images, labels)
    else:
        step = published(args, images, labels, itrd=what)
    while True:
        try:
            asked = pipe.recv()
        except EOFError:  # the script has ended
            return
        if asked == "kernels":
            pipe.send(kernels(step))
        elif asked == "shares":
            assert isinstance(step, Ours)
            pipe.send(step.shares(args.rounds * (args.steps - 1)))
        else:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            step()
            _wait(device)
            start = time.perf_counter()
            for _ in range(args.steps - 1):
                step()
            # A training does not wait for the GPU after a step either: the CPU prepares the next ones meanwhile.
            _wait(device)
            pipe.send((time.perf_counter() - start) / (args.steps - 1))


class Worker:
    """A process that trains one row of the table; ready: the seconds from its start to the end of its first block."""

    def __init__(self, what: Training | bool, args: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # A daemon may not start the processes of a DataLoader.
        self.process = context.Process(target=serve, args=(what, args, theirs), daemon=False)
        atexit.register(self.process.terminate)
        self.started, self.ready = time.perf_counter(), math.nan
        self.process.start()
        theirs.close()
        self.pipe.send("steps")

    def wait(self) -> bool:
        """Waits for the first block of steps, in which the step is compiled; returns False if the process failed."""
        try:
            self.pipe.recv()
        except EOFError:
            return False
        self.ready = time.perf_counter() - self.started
        return True

    def ask(self, what: str) -> Any:
        """Returns the process's answer."""
        self.pipe.send(what)
        return self.pipe.recv()


def start(rows: dict[str, Training | bool], args: argparse.Namespace, *, together: bool) -> dict[str, Worker]:
    """Starts a process for each row and returns those that have compiled their step; the others have printed why not.

    together: compiles them side by side, otherwise one after the other.
    """
    started: dict[str, Worker] = {}
    ready: dict[str, bool] = {}
    for name, what in rows.items():
        started[name] = Worker(what, args)
        if not together:
            ready[name] = started[name].wait()
    if together:
        ready = {name: worker.wait() for name, worker in started.items()}
    for name in (name for name, fine in ready.items() if not fine):
        print(f"{name}: left out, because its process failed")
    return {name: worker for name, worker in started.items() if ready[name]}


def kernels(step: Step) -> str:
    """Returns a table of the GPU kernels of some steps, those that take longest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(_PROFILED):
            step()
    table: str = profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=100)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="blocks of steps for each way")
    parser.add_argument("--steps", type=int, default=6, help="steps in a block, at least 2")
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes of the published way")
    parser.add_argument("--precision", default="bf16-mixed", choices=["bf16-mixed", "16-mixed", "32-true"])
    parser.add_argument("--compile_mode", default="auto", choices=["auto", "reduce-overhead", "max-autotune"])
    parser.add_argument("--kernels", type=Path, default=None, help="file for a list of each step's kernels (GPU only)")
    parser.add_argument("--only", default=None, help="rows of the table to measure, separated by ;")
    parser.add_argument("--no-parts", dest="parts", action="store_false", help="do not time the parts of a step")
    parser.add_argument("--eager", dest="compile", action="store_false", help="do not use torch.compile")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()

    gpu = torch.cuda.is_available()
    rows: dict[str, Training | bool] = {
        **trainings(args.network, fused=gpu and args.compile),
        "student, published way": False,
        "student + ITRD, published way": True,
    }
    if args.only is not None:
        rows = {name: what for name, what in rows.items() if name in args.only.split(";")}
    workers = start(rows, args, together=gpu)
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(1 + args.rounds):
        if turn == 1:
            print("every step is compiled and has run", flush=True)
        for name, worker in workers.items():
            per_step = worker.ask("steps")
            if turn > 0:  # the first round starts DataLoader workers
                seconds[name].append(per_step)
    speed = {name: args.batch / statistics.median(values) for name, values in seconds.items()}
    device = torch.device("cuda" if gpu else "cpu")
    print(
        f"{args.network}, batch {args.batch}, {device.type}, {args.precision}, {torch.get_num_threads()} threads, ",
        end="",
    )
    print(f"{args.rounds} blocks of {args.steps} steps\n")
    print(f"{'':36}  {'images/s':>10}  {'of the published way':>20}")
    over = {name: value / speed[_baseline(name)] for name, value in speed.items() if _baseline(name) in speed}
    for name, value in speed.items():
        ratio = f"{over[name]:.2f}x" if name in over else "-"
        print(f"{name:36}  {value:10,.0f}  {ratio:>20}")
    if {"student + KD", "student + ITRD"} <= speed.keys():
        print(f"\nstep time with ITRD / step time with KD: {speed['student + KD'] / speed['student + ITRD']:.3f}")
    parts = workers["student + ITRD"].ask("shares") if args.parts and "student + ITRD" in workers else {}
    if parts:
        print("\nparts of a step with ITRD:")
    for part, value in parts.items():
        print(f"{part:30}  {1000 * value:10.2f} ms  {100 * value / sum(parts.values()):17.1f} %")
    if args.out is not None:
        record = {
            "network": args.network,
            "batch": args.batch,
            "precision": args.precision,
            "compile": args.compile,
            "compile_mode": args.compile_mode,
            "images_per_s": speed,
            "seconds_to_first_block": {name: worker.ready for name, worker in workers.items()},
            "over_published": over,
            "itrd_step_parts_ms": {part: 1000 * value for part, value in parts.items()},
            "environment": environment(device),
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    if args.kernels is not None and gpu:
        tables = {name: worker.ask("kernels") for name, worker in workers.items() if "published" not in name}
        args.kernels.write_text("\n".join(f"{name}\n{table}" for name, table in tables.items()))


def _baseline(name: str) -> str:
    """Returns the name of the published way that a training is compared with; a teacher with that of the student."""
    return "student + ITRD, published way" if "ITRD" in name else "student, published way"


if __name__ == "__main__":
    main()
