"""Measures the training speed of a binary student in images/s: this project's step, and that of the published scripts.

    python benchmarks/train_throughput.py [--network resnet20] [--batch 256] [--rounds 3] [--out FILE.json]

The published way is what the public training scripts of ReCU and ITRD do: float32 without compilation, a DataLoader
with PIL transforms for each image, and one `.item()` for each binary layer and step, on the same device. Both ways run
in turns, in short blocks of steps, so that other work on the machine slows both. The first step of a block only warms
up; the median of the others counts. The images are random, of CIFAR-10's shape, because the speed does not depend on
them. At the end the script prints how the time of a step with ITRD is spent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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


def _wait(device: torch.device) -> None:
    """Waits until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Ours:
    """This project's trainer, of which single steps are run: data in a tensor, autocast, channels_last, torch.compile.

    A call runs one training step. With ``marked=True`` it waits for the device after each part of the step, and appends
    the part's seconds to `parts`.
    """

    def __init__(self, name: str, args: argparse.Namespace, distill: DistillConfig, images: Tensor, labels: Tensor):
        train = TrainConfig(
            batch_size=args.batch,
            precision=args.precision,
            compile=args.compile,
            compile_mode=args.compile_mode,
            fused_kernels=args.fused_kernels,
            channels_last=True,
        )
        self.fabric = make_fabric(FabricConfig(), precision=train.precision)
        self.device = self.fabric.device
        torch.manual_seed(0)
        self.network = args.network
        teacher = self._build(None)
        student = self._build(None if name == "teacher" else SchemeConfig())
        self.trainer = Trainer(student, teacher, input_shape=SHAPE, train=train, distill=distill, fabric=self.fabric)
        self.trainer.objective.train()
        half = torch.full((3,), 0.5)
        self.split = TensorSplit(images, labels, half, half, crop_padding=4, flip=True)
        self.batch, self.graphs = args.batch, self.trainer.forms.uses_cuda_graphs
        self.source = self._batches()
        self.parts: dict[str, list[float]] = {}

    def _build(self, scheme: SchemeConfig | None) -> nn.Module:
        """Returns an untrained network on the device, in full precision if `scheme` is None."""
        model = build(NetworkConfig(self.network), scheme, num_classes=10, input_shape=SHAPE)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields training batches (images, labels, indices) without end."""
        epoch = 0
        while True:
            yield from self.split.train_batches(self.batch, seed=0, epoch=epoch, device=self.device)
            epoch += 1

    def __call__(self, *, marked: bool = False) -> None:
        """Runs one training step, and waits until the device has finished it."""
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
        _wait(self.device)

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
        alone = {"teacher forward": self._build(None).eval(), "student forward": self._build(SchemeConfig()).train()}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="blocks of steps for each way")
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes of the published way")
    parser.add_argument("--precision", default="bf16-mixed", choices=["bf16-mixed", "16-mixed", "32-true"])
    parser.add_argument("--compile_mode", default="auto", choices=["auto", "reduce-overhead", "max-autotune"])
    parser.add_argument("--fused_kernels", action="store_true", help="set train.fused_kernels (GPU only)")
    parser.add_argument("--eager", dest="compile", action="store_false", help="do not use torch.compile")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16 * args.batch, *SHAPE), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (len(images),), generator=generator)
    methods = {
        "teacher": DistillConfig(),
        "student": DistillConfig(),
        "student + KD": DistillConfig(ce=0.1, kd=KDConfig()),
        "student + ITRD": DistillConfig(itrd=ITRDConfig()),
    }
    ours = {name: Ours(name, args, distill, images, labels) for name, distill in methods.items()}
    steps: dict[str, Step] = {
        **ours,
        "student, published way": published(args, images, labels, itrd=False),
        "student + ITRD, published way": published(args, images, labels, itrd=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(1 + args.rounds):
        for name, step in steps.items():
            for i in range(args.steps):
                start = time.perf_counter()
                step()
                # The first round compiles and starts workers, and the first step of a block refills caches.
                if turn > 0 and i > 0:
                    seconds[name].append(time.perf_counter() - start)
    speed = {name: args.batch / statistics.median(values) for name, values in seconds.items()}
    device = ours["student"].device
    print(
        f"{args.network}, batch {args.batch}, {device.type}, {args.precision}, {torch.get_num_threads()} threads, ",
        end="",
    )
    print(f"{args.rounds} blocks of {args.steps} steps\n")
    print(f"{'':30}  {'images/s':>10}  {'of the published way':>20}")
    over = {name: value / speed[_baseline(name)] for name, value in speed.items()}
    for name, value in speed.items():
        print(f"{name:30}  {value:10,.0f}  {over[name]:19.2f}x")
    ratio = speed["student + KD"] / speed["student + ITRD"]
    print(f"\nstep time with ITRD / step time with KD: {ratio:.3f}")
    parts = ours["student + ITRD"].shares(args.rounds * (args.steps - 1))
    total = sum(parts.values())
    print("\nparts of a step with ITRD:")
    for part, value in parts.items():
        print(f"{part:30}  {1000 * value:10.2f} ms  {100 * value / total:17.1f} %")
    if args.out is not None:
        record = {
            "network": args.network,
            "batch": args.batch,
            "precision": args.precision,
            "compile": args.compile,
            "compile_mode": args.compile_mode,
            "fused_kernels": args.fused_kernels,
            "images_per_s": speed,
            "student_over_published": over["student"],
            "itrd_over_published": over["student + ITRD"],
            "itrd_over_kd_step_time": ratio,
            "itrd_step_parts_ms": {part: 1000 * value for part, value in parts.items()},
            "environment": environment(device),
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")


def _baseline(name: str) -> str:
    """Returns the name of the published way that a training is compared with; a teacher with that of the student."""
    return "student + ITRD, published way" if "ITRD" in name else "student, published way"


if __name__ == "__main__":
    main()
