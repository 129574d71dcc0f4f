"""Training speed of a binary student, in images/s: this project's step against the published way, in one run.

    python benchmarks/train_throughput.py [--network resnet20] [--batch 256] [--rounds 3] [--out FILE.json]

The published way is what ReCU's and ITRD's public training scripts do: eager float32, a DataLoader with per-image PIL
transforms, and one `.item()` per binary layer and step. Ways take turns in short blocks, so that what slows the machine
slows all of them; the first step of a block warms up, the median of the others counts. Random images of CIFAR-10's
shape: speed does not depend on what they show.
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
from torch.utils.data import DataLoader, Dataset

from bnn_itrd.config import (
    DistillConfig,
    FabricConfig,
    ITRDConfig,
    KDConfig,
    NetworkConfig,
    SchemeConfig,
    TrainConfig,
)
from bnn_itrd.data import TensorSplit
from bnn_itrd.environment import environment
from bnn_itrd.networks import build
from bnn_itrd.quant import BinaryConv2d, set_progress
from bnn_itrd.training import Trainer, make_fabric

SHAPE = (3, 32, 32)
Step = Callable[[], None]


def ours(
    name: str, network: str, batch: int, distill: DistillConfig, images: torch.Tensor, labels: torch.Tensor
) -> Step:
    """One step of the project's trainer: tensor data set, bf16 autocast, channels_last, torch.compile."""
    train = TrainConfig(batch_size=batch, precision="bf16-mixed", compile=True, channels_last=True)
    fabric = make_fabric(FabricConfig(), precision=train.precision)
    torch.manual_seed(0)
    teacher = build(NetworkConfig(network), None, num_classes=10, input_shape=SHAPE)
    scheme = None if name == "teacher" else SchemeConfig()
    student = build(NetworkConfig(network), scheme, num_classes=10, input_shape=SHAPE)
    trainer = Trainer(student, teacher, input_shape=SHAPE, train=train, distill=distill, fabric=fabric)
    trainer.objective.train()
    half = torch.full((3,), 0.5)
    split = TensorSplit(images, labels, half, half, crop_padding=4, flip=True)

    def batches() -> Iterator[tuple[torch.Tensor, ...]]:
        epoch = 0
        while True:
            yield from split.train_batches(batch, seed=0, epoch=epoch, device=fabric.device)
            epoch += 1

    source = batches()

    def step() -> None:
        x, y, index = next(source)
        set_progress(trainer.objective, 0.5)
        loss, _, _ = trainer.step_module(x.contiguous(memory_format=torch.channels_last), y, index)
        fabric.backward(loss)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()

    return step


class _Pictures(Dataset[tuple[torch.Tensor, int]]):
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


def published(network: str, batch: int, images: torch.Tensor, labels: torch.Tensor, workers: int) -> Step:
    """One step as the public scripts take it, on the same student."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    student = build(NetworkConfig(network), SchemeConfig(), num_classes=10, input_shape=SHAPE).to(device).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    pictures = _Pictures(images.permute(0, 2, 3, 1).numpy(), labels.numpy())
    loader = DataLoader(
        pictures, batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    layers = [m for m in student.modules() if isinstance(m, BinaryConv2d)]

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    source = batches()

    def step() -> None:
        x, y = next(source)
        set_progress(student, 0.5)
        for layer in layers:  # ReCU's script reads the bound of every layer on the host
            layer.weight.abs().mean().item()
        loss = F.cross_entropy(student(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--steps", type=int, default=6, help="steps in a turn")
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes of the published way")
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
    steps: dict[str, Step] = {
        name: ours(name, args.network, args.batch, distill, images, labels) for name, distill in methods.items()
    }
    steps["student, the published way"] = published(args.network, args.batch, images, labels, args.workers)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(1 + args.rounds):
        for name, step in steps.items():
            for i in range(args.steps):
                start = time.perf_counter()
                step()
                # The first round compiles and starts workers, a block's first step refills caches.
                if turn > 0 and i > 0:
                    seconds[name].append(time.perf_counter() - start)
    speed = {name: args.batch / statistics.median(values) for name, values in seconds.items()}
    baseline = speed["student, the published way"]
    print(
        f"{args.network}, batch {args.batch}, {torch.get_num_threads()} threads, "
        f"{args.rounds} turns of {args.steps} steps\n"
    )
    print(f"{'':28}  {'images/s':>10}  {'of the published way':>20}")
    for name, value in speed.items():
        print(f"{name:28}  {value:10,.0f}  {value / baseline:19.2f}x")
    ratio = speed["student + KD"] / speed["student + ITRD"]
    print(f"\nstep time with ITRD / step time with KD: {ratio:.3f}")
    if args.out is not None:
        record = {
            "network": args.network,
            "batch": args.batch,
            "images_per_s": speed,
            "student_over_published": speed["student"] / baseline,
            "itrd_over_kd_step_time": ratio,
            "environment": environment(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
