"""What runs on arm64, under qemu, with numpy and onnxruntime alone: `arm64_guest.py FOLDER`, see test_arm64.py.

FOLDER has the native library, and of each network NAME.onnx and NAME.npz: its inputs (in.*) and what x86 gave (out.*).
Writes FOLDER/results.json.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from runtime.native.direct import DirectConvolution, direct_signs, load_library

KERNELS = ("portable", "neon")
SPECIAL = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 3e38, -3e38], np.float32)


def convolution(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Returns packed signs, packed weights and the attributes of a random convolution, also unusual ones."""
    while True:
        group, channels = int(rng.choice([1, 1, 2, 3])), int(rng.choice([1, 5, 16, 32, 33, 64, 70, 200]))
        outputs = group * int(rng.choice([1, 7, 16, 20, 32, 48]))
        shape, pads = rng.integers(1, 6, 2), rng.integers(0, 4, 4)
        strides, dilations, sides = rng.integers(1, 4, 2), rng.integers(1, 3, 2), rng.integers(1, 12, 2)
        if all(sides[a] + pads[a] + pads[a + 2] > dilations[a] * (shape[a] - 1) for a in range(2)):
            break
    weights = rng.integers(0, 256, (*shape, -(-channels // 8), outputs), np.uint8)
    x = rng.integers(0, 256, (int(rng.integers(1, 4)), *sides, -(-group * channels // 8)), np.uint8)
    attributes = {"channels": group * channels, "group": group, "padding_value": int(rng.integers(-1, 2))}
    return x, weights, {**attributes, "strides": strides, "pads": pads, "dilations": dilations}


def floats(rng: np.random.Generator, shape: tuple[int, ...], *, special: bool) -> np.ndarray:
    values = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.2, rng.choice(SPECIAL, shape), values) if special else values


def direct(library: Any, seed: int) -> list[str]:
    """Runs a random convolution in every form with the NEON and the portable kernel; returns the forms that differ."""
    rng = np.random.default_rng(seed)
    x, weights, attributes = convolution(rng)
    outputs = weights.shape[-1]
    raw = [DirectConvolution(library, name, weights, **attributes)(x)[0]["raw"] for name in KERNELS]
    scale, bias, before, slope, after, level = (floats(rng, (outputs,), special=seed % 3 == 0) for _ in range(6))
    residual = floats(rng, raw[0].shape, special=seed % 3 == 0)
    threshold = rng.integers(-9, 10, outputs).astype(np.int32)
    threshold[0] = rng.choice([-(2**30), 2**30, -(2**31), 2**31 - 1])
    scaled = {"scale": scale, "bias": bias}
    limits = [(-0.7, 0.9), (0.0, 0.9), (-0.7, -0.0), (-0.0, 0.0)][seed % 4]
    forms: dict[str, dict[str, Any]] = {
        "threshold": {"threshold": threshold},
        "plain": scaled,
        "clip": {**scaled, "limits": limits},
        "rprelu": {**scaled, "rprelu": (before, slope, after), "level": level},
    }
    wrong = [] if np.array_equal(*raw) else ["raw"]
    for name, form in forms.items():
        for add in (False, True) if "scale" in form else (False,):
            made = [
                DirectConvolution(library, kernel, weights, add=add, **form, **attributes)(x, residual if add else None)
                for kernel in KERNELS
            ]
            (first, _), (second, _) = made
            if any(first[key].tobytes() != second[key].tobytes() for key in first):
                wrong.append(f"{name} add={add}")
    for given in (None, level):
        first, second = (direct_signs(library, name, residual, given) for name in KERNELS)
        if not np.array_equal(first, second):
            wrong.append(f"signs level={given is not None}")
    return [f"seed {seed}: {form} of {weights.shape}, {attributes}" for form in wrong]


def run(file: Path, feeds: dict[str, np.ndarray], library: Path | None, threads: int) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def meaning(values: np.ndarray) -> np.ndarray:
    """Returns the part of an output that must agree: floats as their bits, and of signs the bytes that are used."""
    if values.dtype != np.uint8:
        return values.view(np.int32).reshape(-1)
    n, h, w, c = values.shape
    return values.reshape(-1)[: n * h * w * -(-c // 8)]


def compared(ours: dict[str, np.ndarray], others: dict[str, np.ndarray], *, signs: bool) -> dict[str, Any]:
    """Compares the outputs of two runs; returns numbers that differ, largest difference, share of equal classes."""
    differ = total = 0
    largest, argmax = 0.0, 1.0
    for name, values in others.items():
        if values.dtype == np.uint8 and not signs:
            continue
        different = meaning(ours[name]) != meaning(values)
        differ, total = differ + int(different.sum()), total + different.size
        if values.dtype != np.uint8 and values.size:
            largest = max(largest, float(np.abs(ours[name] - values).max()))
        if values.ndim == 2:
            argmax = float((ours[name].argmax(1) == values.argmax(1)).mean())
    return {"differ": differ, "of": total, "largest": largest, "argmax": argmax}


def network(folder: Path, name: str, library: Path) -> dict[str, Any]:
    """Compares a file run with NEON with four other runs: portable kernel, two threads, no library, and x86."""
    arrays = np.load(folder / f"{name}.npz")
    feeds = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in.")}
    expected = {key[4:]: arrays[key] for key in arrays.files if key.startswith("out.")}
    file = folder / f"{name}.onnx"
    os.environ["BNN_ITRD_KERNEL"] = "portable"
    portable = run(file, feeds, library, 1)
    del os.environ["BNN_ITRD_KERNEL"]
    neon = run(file, feeds, library, 1)
    return {
        "portable": compared(neon, portable, signs=True),
        "threads": compared(neon, run(file, feeds, library, 2), signs=True),
        "stock": compared(neon, run(file, feeds, None, 1), signs=False),
        "x86": compared(neon, expected, signs=True),
    }


def main(folder: Path) -> None:
    start = time.perf_counter()
    path = next(folder.glob("libbnn_itrd*"))
    library = load_library(path)
    library.bnn_itrd_kernel.restype = ctypes.c_char_p
    wrong = [text for seed in range(48) for text in direct(library, seed)]
    names = sorted(file.stem for file in folder.glob("*.onnx"))
    results = {
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "kernel": library.bnn_itrd_kernel(None, 0).decode(),
        "wrong": wrong,
        "networks": {name: network(folder, name, path) for name in names},
        "seconds": time.perf_counter() - start,
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
