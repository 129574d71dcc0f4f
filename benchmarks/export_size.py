"""Measures size, loading time and speed of ONNX files of ResNet-18: two of a binary student, and one of a teacher.

The student's files store its weights as bits and as floats. All weights are random, because none of the numbers
depends on them. The script prints a table; --out also writes JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from bnn_itrd.export import compare_milliseconds, predict_file, session, to_onnx
from bnn_itrd.models import resnet18


def creation_seconds(file: Path, *, threads: int, repeats: int) -> float:
    """Returns the median of the seconds that onnxruntime takes to load a file."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        session(file, threads=threads)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(folder: Path, *, threads: int, repeats: int) -> dict[str, Any]:
    """Writes the files of a student, in two forms, and a teacher; returns their sizes and times, as values for JSON."""
    torch.manual_seed(0)
    student, teacher = resnet18(binary="recu"), resnet18()
    files = {
        "student, 1 bit per weight": to_onnx(student, folder / "student.onnx"),
        "student, float weights": to_onnx(student, folder / "student_float.onnx", packed=False),
        "teacher": to_onnx(teacher, folder / "teacher.onnx"),
    }
    sessions = {name: session(file, threads=threads) for name, file in files.items()}
    milliseconds = compare_milliseconds(sessions, repeats=repeats)
    images = np.random.default_rng(0).standard_normal((32, 3, 32, 32), np.float32)
    bits, floats, _ = (predict_file(opened, images) for opened in sessions.values())
    return {
        "files": {
            name: {
                "bytes": file.stat().st_size,
                "session_creation_s": creation_seconds(file, threads=threads, repeats=5),
                "ms_per_image": milliseconds[name],
            }
            for name, file in files.items()
        },
        "bits_equal_floats": bool(np.array_equal(bits, floats)),
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50, help="runs of each file, in turns; the median counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), threads=arguments.threads, repeats=arguments.repeats)
    print(f"ResNet-18, input 3x32x32, batch 1, {arguments.threads} thread(s)")
    print(f"{'file':28}{'bytes':>12}{'session s':>12}{'ms/image':>12}")
    for name, row in result["files"].items():
        print(f"{name:28}{row['bytes']:12,}{row['session_creation_s']:12.3f}{row['ms_per_image']:12.2f}")
    print(f"the files with bits and with floats give exactly the same results: {result['bits_equal_floats']}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
