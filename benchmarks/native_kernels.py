"""The native kernels on the binary layers of ResNet-18 for 32x32 images: microseconds, GMAC/s, share of the ceiling.

One thread, no onnxruntime. The ceiling is what a plain kernel could reach, xor, population count and add for each 32
products of a lane, at the speed this machine was just measured to do them in registers; a kernel that needs fewer
operations can pass 100 %. Prints a table; --out also writes JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.export.runtime.native import kernel
from bnn_itrd.export.runtime.native.direct import KERNELS, DirectConvolution, aligned, load_library

# Channels, outputs, side of the input, stride, how many write signs by a threshold, how many floats and signs.
LAYERS = (
    (64, 64, 32, 1, 2, 2),
    (64, 128, 32, 2, 1, 0),
    (128, 128, 16, 1, 1, 2),
    (128, 256, 16, 2, 1, 0),
    (256, 256, 8, 1, 1, 2),
    (256, 512, 8, 2, 1, 0),
    (512, 512, 4, 1, 1, 2),
)

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
    """Binary GMAC/s of xor, popcount and add from registers alone; None for kernels without such an instruction."""
    if name != "avx512":
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "ceiling.c"), Path(folder, "ceiling")
        source.write_text("".join(f"#define {key} {value}\n" for key, value in _AVX512.items()) + _CEILING)
        flags = ["-O3", "-mavx512f", "-mavx512vpopcntdq"]
        subprocess.run(["cc", *flags, str(source), "-o", str(program)], check=True)
        return float(subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout)


def layer_seconds(name: str, layer: tuple[int, ...], *, batch: int, repeats: int) -> tuple[float, float]:
    """Median seconds an image of one layer: with a threshold, and with residual, clip and signs."""
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
    return float(np.median(thresholds)) / batch, float(np.median(floats)) / batch


def measure(names: Iterable[str], *, batch: int, repeats: int) -> dict[str, Any]:
    """For each kernel: its ceiling, its layers, the sum over the network's sixteen."""
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
            for epilogue, time in zip(("threshold", "add, clip, sign"), times, strict=True):
                rate = macs / time / 1e9
                rows.append(
                    {
                        "layer": f"{channels} -> {outputs}, {side}x{side}, stride {stride}",
                        "epilogue": epilogue,
                        "microseconds": 1e6 * time,
                        "gmac_per_s": rate,
                        "share_of_ceiling": None if top is None else rate / top,
                    }
                )
        total = {"microseconds": 1e6 * seconds, "gmac_per_s": products / seconds / 1e9}
        result["kernels"][name] = {"ceiling_gmac_per_s": top, "layers": rows, "network": total}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=200)
    available = ("neon",) if kernel() == "neon" else KERNELS[1 : KERNELS.index(kernel()) + 1]
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(available), help="portable is slow")
    arguments = parser.parse_args()
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
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
