"""Measures the native kernels on the binary layers of ResNet-18, and the overhead of whole networks above their sums.

    python benchmarks/native_kernels.py [--networks resnet18 ...] [--kernels avx2 ...] [--out FILE]

For the layers it prints microseconds, GMAC/s, and the share of the ceiling, on one thread and without onnxruntime. The
ceiling is the speed of a simple kernel that does an xor, a population count and an addition for each 32 products, as
measured here with all values in registers. A kernel that needs fewer operations can exceed 100 %.

For a network it prints the microseconds of an image in an onnxruntime session with one thread, with the call from
Python, and their ratio to the time of the bare sums. These are the kernel's inner loops for all binary layers, on data
that is already in the first-level cache. Gathering the data, thresholds, float operations, signs, poolings, and the
first and last layer are not part of them. Both times are the smallest of many runs in turns, and the session's is the
processor time of its thread, so that other work on the machine matters little. --out also writes JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.export.runtime import native
from bnn_itrd.export.runtime.machine import describe_machine
from bnn_itrd.export.runtime.native import kernel
from bnn_itrd.export.runtime.native.direct import KERNELS, DirectConvolution, aligned, load_library

# The binary layers of ResNet-18: input channels, output channels, image side, stride, how many such layers write only
# signs (by a threshold), and how many write floats and signs.
LAYERS = (
    (64, 64, 32, 1, 2, 2),
    (64, 128, 32, 2, 1, 0),
    (128, 128, 16, 1, 1, 2),
    (128, 256, 16, 2, 1, 0),
    (256, 256, 8, 1, 1, 2),
    (256, 512, 8, 2, 1, 0),
    (512, 512, 4, 1, 1, 2),
)

NETWORKS = ("resnet18", "resnet20", "resnet18-reactnet", "resnet20-reactnet")

_CEILING = r"""
#include <immintrin.h>
#include <stdio.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
int main(void) {
    VECTOR sums[12], weights = SET(0x5bd1e995);
    double best = 1e9;
    for (int i = 0; i < 12; ++i) sums[i] = SET(i);
    for (int repeat = 0; repeat < 20; ++repeat) {
        const double start = now();
        for (int k = 0; k < 100000; ++k) {
            #pragma GCC unroll 12
            for (int i = 0; i < 12; ++i) {
                __asm__ volatile("" : "+" REGISTER(weights));
                sums[i] = STEP(sums[i], weights);
            }
        }
        const double seconds = now() - start;
        if (seconds < best) best = seconds;
    }
    for (int i = 0; i < 12; ++i) __asm__ volatile("" : : REGISTER(sums[i]));
    printf("%f", 12 * 100000.0 * sizeof(VECTOR) * 8 / best / 1e9);
}
"""
_AVX512 = {
    "VECTOR": "__m512i",
    "SET(x)": "_mm512_set1_epi32(x)",
    "REGISTER": '"v"',
    "STEP(s,w)": "_mm512_add_epi32(s, _mm512_popcnt_epi32(_mm512_xor_si512(s, w)))",
}


def ceiling(name: str) -> float | None:
    """Measures the ceiling of a kernel in GMAC/s; None for kernels without an instruction for the population count."""
    if name != "avx512":
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "ceiling.c"), Path(folder, "ceiling")
        source.write_text("".join(f"#define {key} {value}\n" for key, value in _AVX512.items()) + _CEILING)
        flags = ["-O3", "-mavx512f", "-mavx512vpopcntdq"]
        subprocess.run(["cc", *flags, str(source), "-o", str(program)], check=True)
        return float(subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout)


def layer_seconds(name: str, layer: tuple[int, ...], *, batch: int, repeats: int) -> tuple[float, float]:
    """Returns the smallest seconds per image of two forms of a layer; name: the kernel; layer: an entry of LAYERS.

    The first form writes signs by a threshold; the second adds a residual, clips, and writes floats and signs.
    """
    channels, outputs, side, stride, *_ = layer
    generator = np.random.default_rng(0)
    weights = generator.integers(0, 256, (3, 3, channels // 8, outputs), np.uint8)
    signs = aligned((batch, side, side, channels // 8), np.uint8)
    signs[...] = generator.integers(0, 256, signs.shape, np.uint8)
    residual = aligned((batch, side // stride, side // stride, outputs), np.float32)
    residual[...] = generator.standard_normal(residual.shape, np.float32)
    common: dict[str, Any] = {"channels": channels, "strides": (stride, stride), "pads": (1, 1, 1, 1)}
    scale = generator.standard_normal(outputs, np.float32)
    threshold = generator.integers(-20, 20, outputs).astype(np.int32)
    first = DirectConvolution(load_library(), name, weights, threshold=threshold, **common)
    second = DirectConvolution(
        load_library(), name, weights, scale=scale, bias=scale, add=True, limits=(-1, 1), **common
    )
    _, thresholds = first(signs, repeats=repeats)
    _, floats = second(signs, residual, repeats=repeats)
    return float(thresholds.min()) / batch, float(floats.min()) / batch


def measure(names: Iterable[str], *, batch: int, repeats: int) -> dict[str, Any]:
    """Measures each kernel: its ceiling, each layer, and the sum over the sixteen binary layers of the network."""
    result: dict[str, Any] = {"batch": batch, "machine": platform.machine(), "kernels": {}}
    for name in names:
        top = ceiling(name)
        rows, seconds, products = [], 0.0, 0
        for layer in LAYERS:
            channels, outputs, side, stride, thresholds, floats = layer
            macs = 9 * channels * outputs * (side // stride) ** 2
            times = layer_seconds(name, layer, batch=batch, repeats=repeats)
            count = 3 if stride == 1 and channels > 64 else 4 if stride == 1 else 1
            assert thresholds + floats == count
            seconds += thresholds * times[0] + floats * times[1]
            products += count * macs
            for epilogue, taken in zip(("threshold", "add, clip, sign"), times, strict=True):
                rate = macs / taken / 1e9
                rows.append(
                    {
                        "layer": f"{channels} -> {outputs}, {side}x{side}, stride {stride}",
                        "epilogue": epilogue,
                        "microseconds": 1e6 * taken,
                        "gmac_per_s": rate,
                        "share_of_ceiling": None if top is None else rate / top,
                    }
                )
        total = {"microseconds": 1e6 * seconds, "gmac_per_s": products / seconds / 1e9}
        result["kernels"][name] = {"ceiling_gmac_per_s": top, "layers": rows, "network": total}
    return result


# Computes the sums of a layer in chunks of pixels, as the library does, and returns the smallest seconds of some runs.
_SUMS = r"""
#include SOURCE
#include <stdlib.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
static inline void sums(const bnn_job* job, int64_t block, void* to) {
#if defined(__AVX512VPOPCNTDQ__)
    for (int64_t pixel = 0; pixel < job->pixels; pixel += 8) {
        mismatches(Tile{job, pixel, block, 0xFFFF, 8}, (__m512i*)to);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
#elif defined(__AVX2__)
    for (int64_t pixel = 0; pixel < job->pixels; pixel += kMost * kStrip) {
        const int64_t left = (job->pixels - pixel + kMost - 1) / kMost, many = left < kStrip ? left : kStrip;
        strip_mismatches<kMost>(job->windows + pixel, job->window_stride, job->weights + block * job->pairs * 32,
                                job->pairs, 1, many, (__m256i*)to);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
#else
    for (int64_t pixel = 0; pixel < job->pixels; pixel += 2) {
        mismatches(Tile{job, pixel, block, 2, 16}, (uint32x4_t*)to);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
#endif
}
extern "C" double bare_sums(int64_t pairs, int64_t blocks, int64_t pixels, int64_t repeats) {
    const int64_t fit = 6144 / (2 * pairs) / 8 * 8 - 16, chunk = pixels < fit ? pixels : fit < 8 ? 8 : fit;
    bnn_job job = {};
    job.window_stride = chunk + 16, job.pairs = pairs;
    const int64_t words = 2 * pairs * job.window_stride, weights = blocks * pairs * 32;
    uint32_t* const memory = (uint32_t*)aligned_alloc(64, (words + weights + 15) / 16 * 64);
    for (int64_t i = 0; i < words + weights; ++i) memory[i] = (uint32_t)rand();
    job.weights = memory, job.windows = memory + weights;
    alignas(64) char results[64 * 64];
    double best = 1e9;
    for (int64_t repeat = 0; repeat < repeats; ++repeat) {
        const double start = now();
        for (int64_t first = 0; first < pixels; first += chunk) {
            job.pixels = pixels - first < chunk ? pixels - first : chunk;
            for (int64_t block = 0; block < blocks; ++block) sums(&job, block, results);
        }
        const double seconds = now() - start;
        if (seconds < best) best = seconds;
    }
    free(memory);
    return best;
}
"""
_FLAGS = {
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vpopcntdq"],
    "avx2": ["-mavx2", "-mfma"],
    "neon": ["-fno-schedule-insns"],
}


def sums_library(name: str, folder: Path) -> Any:
    """Compiles and loads a library with a kernel's source and `bare_sums`, which runs the kernel's inner loop."""
    source, library = folder / "sums.cpp", folder / f"{name}.so"
    source.write_text(_SUMS)
    kernel_source = Path(native.__file__).parent / "src" / f"{name}.cpp"
    flags = ["-std=c++17", "-O3", "-fPIC", "-w", "-ffp-contract=off", *_FLAGS[name], f'-DSOURCE="{kernel_source}"']
    subprocess.run(["c++", *flags, "-shared", str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.bare_sums.restype = ctypes.c_double
    return loaded


def binary_layers(file: Path) -> list[tuple[int, int, int, int]]:
    """Returns the sizes of each binary convolution in an ONNX file, as `bare_sums` takes them.

    They are: pairs of 32-bit words of a window, blocks of 16 outputs, output pixels, groups. The file must be exported
    with ``chains=False``, so that each layer is a node.
    """
    import onnx

    graph = onnx.load(file).graph
    shapes = {value.name: tuple(value.dims) for value in graph.initializer}
    layers = []
    for node in graph.node:
        if not node.op_type.removeprefix("Grouped").startswith("BinaryConv"):
            continue
        have = {item.name: list(item.ints) or item.i for item in node.attribute}
        height, width, _, outputs = shapes[node.input[1]]
        channels, taps = have["channels"] // have["group"], height * width
        words = -(-taps // 2) if channels <= 16 else taps * -(-channels // 32)  # two taps of 16 channels share a word
        sides = [
            (have["input_size"][i] + have["pads"][i] + have["pads"][i + 2] - have["dilations"][i] * (k - 1) - 1)
            // have["strides"][i]
            + 1
            for i, k in enumerate((height, width))
        ]
        layers.append((-(-words // 2), -(-(outputs // have["group"]) // 16), sides[0] * sides[1], have["group"]))
    return layers


def network_rows(network: str, names: Iterable[str], folder: Path, *, rounds: int) -> list[dict[str, Any]]:
    """Measures a network with each kernel and batch size: microseconds per image, those of the bare sums, the ratio."""
    import torch
    from deploy import NETWORKS

    from bnn_itrd.export import session, to_onnx

    torch.manual_seed(0)
    _, student, shape = NETWORKS[network]()
    layers = binary_layers(to_onnx(student, folder / "apart.onnx", input_shape=shape, chains=False))
    file = to_onnx(student, folder / "network.onnx", input_shape=shape)
    rows = []
    for name in names:
        library = sums_library(name, folder)
        os.environ["BNN_ITRD_KERNEL"] = name
        opened = session(file, threads=1, native=True)
        os.environ.pop("BNN_ITRD_KERNEL")
        batches = (1, 32)
        inputs = {b: np.random.default_rng(0).standard_normal((b, *shape), np.float32) for b in batches}
        whole, bare = dict.fromkeys(batches, np.inf), dict.fromkeys(layers, np.inf)
        for _ in range(rounds):
            for layer in bare:
                seconds = layer[3] * library.bare_sums(*(ctypes.c_int64(value) for value in (*layer[:3], 5)))
                bare[layer] = min(bare[layer], seconds)
            for batch, x in inputs.items():
                for _ in range(20 if batch == 1 else 2):
                    start = time.thread_time()
                    opened.run(None, {opened.get_inputs()[0].name: x})
                    whole[batch] = min(whole[batch], (time.thread_time() - start) / batch)
        sums = sum(bare[layer] for layer in layers)
        for batch in batches:
            row = {"network": network, "kernel": name, "batch": batch, "microseconds": 1e6 * whole[batch]}
            rows.append({**row, "sums_microseconds": 1e6 * sums, "ratio": whole[batch] / sums})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=200)
    available = ("neon",) if kernel() == "neon" else KERNELS[1 : KERNELS.index(kernel()) + 1]
    parser.add_argument(
        "--kernels", nargs="+", choices=KERNELS, default=list(available), help="kernels to measure; portable is slow"
    )
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), help="of benchmarks/deploy.py; no names: none")
    parser.add_argument("--rounds", type=int, default=40, help="turns of a network and its sums")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['features']}")
    result = measure(arguments.kernels, batch=arguments.batch, repeats=arguments.repeats)
    for name, values in result["kernels"].items():
        top = values["ceiling_gmac_per_s"]
        print(f"{name}, batch {arguments.batch}" + (f", ceiling {top:.0f} GMAC/s" if top else ""))
        for row in values["layers"]:
            share = "" if row["share_of_ceiling"] is None else f"{100 * row['share_of_ceiling']:8.0f} %"
            numbers = f"{row['microseconds']:9.2f} us{row['gmac_per_s']:8.0f} GMAC/s{share}"
            print(f"  {row['layer']:32}{row['epilogue']:16}{numbers}")
        total = values["network"]
        print(f"  {'the 16 binary layers':48}{total['microseconds']:9.2f} us{total['gmac_per_s']:8.0f} GMAC/s")
    result["processor"], result["networks"] = machine, []
    for network in arguments.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows = network_rows(network, arguments.kernels, Path(folder), rounds=arguments.rounds)
        result["networks"] += rows
        for row in rows:
            numbers = f"{row['microseconds']:9.0f} us, sums{row['sums_microseconds']:6.0f} us, ratio {row['ratio']:.2f}"
            print(f"{network:20}{row['kernel']:8}batch {row['batch']:2}{numbers}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
