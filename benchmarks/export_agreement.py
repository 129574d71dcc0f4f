"""Compares a trained ResNet-18 with its exported ONNX file on all 10,000 test images of CIFAR-10.

    python benchmarks/export_agreement.py --data.root cifar10.npz [--steps 200] [--out FILE.json]

The training is short, 200 steps of 128 images. That is enough to move weights, scales and normalisations away from
their initial values.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.deploy.agreement import run_split
from bnn_itrd.deploy.targets import open_file
from bnn_itrd.environment import environment
from bnn_itrd.export import agreement, to_onnx
from bnn_itrd.runs.networks import build
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data.root", dest="root", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2, help="number of threads of onnxruntime")
    parser.add_argument("--stock", action="store_true", help="run the file without the native library")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    data = load_data(DataConfig(name="cifar10", root=args.root))
    train = TrainConfig(batch_size=128, lr=0.05, precision="bf16-mixed", channels_last=True)
    fabric = make_fabric(FabricConfig(), precision=train.precision)
    torch.manual_seed(0)
    student = build(NetworkConfig("resnet18"), SchemeConfig(), num_classes=10, input_shape=data.input_shape)
    trainer = Trainer(student, None, input_shape=data.input_shape, train=train, distill=DistillConfig(), fabric=fabric)
    trainer.objective.train()
    batches = data.train.train_batches(train.batch_size, seed=0, epoch=0, device=fabric.device)
    for step, (images, labels, index) in zip(range(args.steps), batches, strict=False):
        loss, _, _ = trainer.step_module(images.contiguous(memory_format=torch.channels_last), labels, index)
        fabric.backward(loss)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)
    student = student.cpu().to(memory_format=torch.contiguous_format).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = to_onnx(student, Path(folder) / "student.onnx")
        size = file.stat().st_size
        started = time.perf_counter()
        opened = open_file(file, threads=args.threads, native=False if args.stock else None)
        created = time.perf_counter() - started
        theirs, ours, truth = run_split(student, opened, data)
        assert theirs is not None and ours is not None
        result = agreement(theirs, ours, truth)
    print(f"{size:,} bytes, session created in {created:.3f} s")
    print(f"{result.images:,} images: same class {100 * result.argmax_agreement:.3f} %")
    print(f"difference of a logit: largest {result.max_difference:.2e}, median {result.median_difference:.2e}")
    if args.out is not None:
        record = {
            **asdict(result),
            "disagreements": [d._asdict() for d in result.disagreements],
            "steps": args.steps,
            "bytes": size,
            "session_creation_s": created,
            "environment": environment(torch.device("cpu")),
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
