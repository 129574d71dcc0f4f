"""Random convolutions through every family of kernels: ``kernels.py LIBRARY KERNEL,KERNEL COUNT SEED``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bnn_itrd.export.runtime.native.direct import DirectConvolution, direct_signs, load_library


def main() -> None:
    """Runs them and prints how many; families that disagree are an AssertionError."""
    library, kernels = load_library(Path(sys.argv[1])), sys.argv[2].split(",")
    rng, done = np.random.default_rng(int(sys.argv[4])), 0
    while done < int(sys.argv[3]):
        group, i = int(rng.choice([1, 1, 2, 3])), int(rng.choice([1, 5, 16, 32, 33, 48, 64, 70]))
        o = int(rng.choice([1, 7, 16, 20, 48]))
        shape, pads = rng.integers(1, 6, 2), rng.integers(0, 4, 4)
        strides, dilations, sides = rng.integers(1, 4, 2), rng.integers(1, 3, 2), rng.integers(1, 20, 2)
        if any(sides[a] + pads[a] + pads[a + 2] < dilations[a] * (shape[a] - 1) + 1 for a in range(2)):
            continue
        weights = rng.integers(0, 256, (*shape, -(-i // 8), group * o), np.uint8)
        x = rng.integers(0, 256, (int(rng.integers(1, 4)), *sides, -(-group * i // 8)), np.uint8)
        scale = rng.standard_normal(group * o, np.float32)
        common: dict[str, Any] = {"channels": group * i, "group": group, "padding_value": int(rng.integers(-1, 2))}
        common |= {"strides": strides, "pads": pads, "dilations": dilations}
        bent: dict[str, Any] = {"rprelu": (scale,) * 3, "level": scale} if done % 2 else {"limits": (-1, 1)}
        results = []
        for name in kernels:
            raw = DirectConvolution(library, name, weights, **common)(x)[0]["raw"]
            residual = np.ascontiguousarray(raw[::-1].astype(np.float32))
            scaled = DirectConvolution(library, name, weights, scale=scale, bias=scale, add=True, **common, **bent)
            y = scaled(x, residual)[0]
            bits = DirectConvolution(library, name, weights, threshold=scale.astype(np.int32), **common)(x)[0]["signs"]
            signs = direct_signs(library, name, residual), direct_signs(library, name, residual, scale)
            results.append((raw, y["y"], y["signs"], bits, *signs))
        for other in results[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True)), common
        done += 1
    print(done)


if __name__ == "__main__":
    main()
