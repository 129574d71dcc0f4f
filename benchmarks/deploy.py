"""Measures the latency of binary students and of their full-precision teachers, with each kernel of the processor.

    python benchmarks/deploy.py [--networks resnet18 ...] [--threads 1 2] [--batch 1 32] [--repeats 40] [--out FILE]

The networks are ResNet-18 for 32x32 images, VGG-small, ResNet-20 (16 to 64 channels), both ResNets with RSign and
RPReLU, and torchvision's ResNet-18 for 224x224 images, made binary. Their weights are random, because the time does not
depend on them. Student and teacher run in turns, so that other work on the machine slows both (as `bnn-itrd bench`).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bnn_itrd.console import print_table
from bnn_itrd.export import interleaved_seconds, session, to_onnx
from bnn_itrd.export.runtime.bench import SPINNING
from bnn_itrd.export.runtime.machine import describe_machine
from bnn_itrd.export.runtime.native import kernel, why_unavailable
from bnn_itrd.models import resnet18, resnet20, vgg_small

Pair = tuple[nn.Module, nn.Module, tuple[int, int, int]]


def _imagenet() -> Pair:
    """Returns torchvision's ResNet-18 as teacher, the same made binary as student, and the input shape."""
    import torchvision

    from bnn_itrd.quant import binarize

    teacher = torchvision.models.resnet18(num_classes=1000)
    student, _ = binarize(torchvision.models.resnet18(num_classes=1000))
    return teacher, student, (3, 224, 224)


NETWORKS: dict[str, Callable[[], Pair]] = {
    "resnet18": lambda: (resnet18(), resnet18(binary="recu"), (3, 32, 32)),
    "vgg_small": lambda: (vgg_small(), vgg_small(binary="recu"), (3, 32, 32)),
    "resnet20": lambda: (resnet20(), resnet20(binary="recu"), (3, 32, 32)),
    "resnet18-reactnet": lambda: (resnet18(), resnet18(binary="reactnet"), (3, 32, 32)),
    "resnet20-reactnet": lambda: (resnet20(), resnet20(binary="reactnet"), (3, 32, 32)),
    "resnet18-224": _imagenet,
}


def _kernels() -> list[str]:
    """Returns the names of the native kernels that this processor can run, the fastest first."""
    if why_unavailable():
        return []
    best = kernel()
    names = ["avx512", "avx2"]
    return names[names.index(best) :] if best in names else []


def _open(file: Path, **how: Any) -> tuple[Any, float]:
    """Opens a file in onnxruntime; returns (the session, the milliseconds that opening it took)."""
    started = time.perf_counter()
    opened = session(file, **how)
    return opened, 1000 * (time.perf_counter() - started)


def _rows(name: str, folder: Path, threads: list[int], batches: list[int], repeats: int) -> list[dict[str, object]]:
    """Returns the rows of the table for one network: one for each number of threads, batch size and form.

    The forms are the teacher, the student with each kernel, and the student in onnxruntime without the native library.
    """
    torch.manual_seed(0)
    teacher, student, shape = NETWORKS[name]()
    teacher_file = to_onnx(teacher, folder / "teacher.onnx", input_shape=shape)
    student_file = to_onnx(student, folder / "student.onnx", input_shape=shape)
    rows: list[dict[str, object]] = []
    for count in threads:
        opened: dict[str, Any] = {}
        creation: dict[str, float] = {}

        opened["teacher"], creation["teacher"] = _open(teacher_file, threads=count)
        for kind in _kernels():
            os.environ["BNN_ITRD_KERNEL"] = kind
            opened[kind], creation[kind] = _open(student_file, threads=count, native=True)
            os.environ.pop("BNN_ITRD_KERNEL")
        opened["stock"], creation["stock"] = _open(student_file, threads=count, native=False)
        pause = SPINNING if count > 1 else 0.0
        for batch in batches:
            # Slow cases get fewer turns, so that a network takes about a minute.
            few = max(6, repeats // (max(1, batch // 4) * max(1, shape[1] // 64) * count))
            times = {
                k: np.array(v) for k, v in interleaved_seconds(opened, batch=batch, repeats=few, pause=pause).items()
            }
            for form, seconds in times.items():
                ratios = times["teacher"] / seconds
                rows.append(
                    {
                        "network": name,
                        "form": form,
                        "threads": count,
                        "batch": batch,
                        "ms_per_image": 1000 * float(np.median(seconds)) / batch,
                        "faster": float(np.median(times["teacher"]) / np.median(seconds)),
                        "low": float(np.quantile(ratios, 0.1)),
                        "high": float(np.quantile(ratios, 0.9)),
                        "session_ms": creation[form],
                        "bytes": (teacher_file if form == "teacher" else student_file).stat().st_size,
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows += _rows(name, Path(folder), args.threads, args.batch, args.repeats)
    print_table(
        [
            {
                "network": str(row["network"]),
                "form": str(row["form"]),
                "threads": str(row["threads"]),
                "batch": str(row["batch"]),
                "ms/image": f"{row['ms_per_image']:.3f}",
                "faster": f"{row['faster']:.2f}x",
                "session ms": f"{row['session_ms']:.0f}",
                "10-90 %": f"{row['low']:.2f}-{row['high']:.2f}",
                "bytes": f"{row['bytes']:,}",
            }
            for row in rows
        ]
    )
    print(describe_machine())
    if args.out is not None:
        args.out.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
