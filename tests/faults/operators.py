"""Malformed models inside onnxruntime: ``operators.py LIBRARY SEED COUNT SANITIZED FILE...``, prints RAN REFUSED."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def main() -> None:
    """Spoils and opens one model after the other."""
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    from faults.mutations import mutate_bytes, mutate_operators

    library, seed, count, bounded, files = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5:]
    if not bounded:  # a sanitizer takes terabytes of addresses, and limits allocations itself
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    rng = np.random.default_rng(seed)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library)
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    ran = refused = 0
    for i in range(count):
        good = Path(files[i % len(files)]).read_bytes()
        model = onnx.load_from_string(good)
        shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in model.graph.input}
        if rng.integers(6) == 0:
            data = mutate_bytes(good, rng)
        else:
            mutate_operators(model, rng, bounded=bool(bounded))
            data = model.SerializeToString()
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            batch, feeds = int(rng.choice([0, 1, 3, 9])), {}
            for name, sides in shapes.items():
                taken = sides if rng.random() < 0.85 else [int(s) for s in rng.integers(0, 14, len(sides))]
                feeds[name] = rng.standard_normal((batch if rng.random() < 0.95 else 2, *taken), np.float32)
            session.run(None, feeds)
            ran += 1
        except Exception:
            refused += 1
    print(ran, refused)


if __name__ == "__main__":
    main()
