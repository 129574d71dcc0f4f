"""Measures a whole `bnn-itrd run digits`: its seconds, its peak memory, and the accuracies.

python benchmarks/digits.py [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [sys.executable, "-m", "bnn_itrd.cli", "run", "digits", "--out", folder]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        comparison = json.loads((Path(folder) / "comparison.json").read_text())
    # ru_maxrss is in KiB on Linux, and that of the largest finished child process.
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    top1 = {m["name"]: m["top1_last"] for m in comparison["models"]}
    agreement = {m["name"]: m["artefacts"][0]["agreement"] for m in comparison["models"]}
    print(f"\n{seconds:.0f} s, {megabytes:.0f} MiB of memory at its peak")
    if args.out is not None:
        record = {
            "seconds": seconds,
            "peak_mib": megabytes,
            "top1": top1,
            "onnx_agreement_percent": agreement,
            "environment": comparison["environment"],
        }
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
