"""Estimates the speed of a student and its teacher on ARM processors without such hardware: cycles for one image.

    python benchmarks/arm_model.py ARM64 [--qemu qemu-aarch64] [--mca llvm-mca-19] [--out FILE]

ARM64 is the folder that `.ci/arm64` makes. Both networks run once, on one thread, in onnxruntime's aarch64 wheel under
qemu-user, an emulator. A plugin of qemu (arm_count.c, compiled here) counts how often each block of instructions runs.
The cycles of both networks follow from the counts by the same rule:

    cycles = sum over the hot loops of (iterations x llvm-mca's cycles) + the other instructions / 2

A hot loop is a block that jumps back to its own beginning and has at least 0.3 % of all instructions. llvm-mca is
LLVM's model of how many cycles a loop takes on a given core. The float multiplications are counted in onnxruntime's own
loops, as its library contains them. The model ignores caches and memory.
qemu must support plugins: Debian's qemu-user does, qemu-user-static does not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from bnn_itrd.console import print_table
from bnn_itrd.export import to_onnx
from bnn_itrd.models import MODELS

HERE = Path(__file__).resolve().parent
# A core that llvm-mca has a model of -> the core that it stands for here.
CORES = {"neoverse-n1": "Cortex-A76", "cortex-a72": "Cortex-A72", "apple-m1": "Apple M1"}
# The smallest share of all instructions that a hot loop has.
HOT = 0.003
_BRANCH = re.compile(r"(?:b\.\w+|cbn?z \w+,|tbn?z .*,)\s*([0-9a-f]+) <")

_GUEST = """
import os, sys
import numpy as np, onnxruntime
x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
for file in sys.argv[2:]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if "student" in file:
        options.register_custom_ops_library(sys.argv[1])
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(None, {"images": x})
    os.umask(0o22)  # at each call of umask the plugin writes the counts since the last one
    session.run(None, {"images": x})
    os.umask(0o22)
print(open("/proc/self/maps").read())
"""


class Modules:
    """The libraries in the emulated process: their addresses in memory, and the instructions in their files.

    maps: the content of the process's /proc/self/maps.
    """

    def __init__(self, maps: str) -> None:
        pattern = r"([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \S+\s+(/\S+)"
        self.ranges = [(int(a, 16), int(b, 16), path) for a, b, _, path in re.findall(pattern, maps)]
        self.start: dict[str, int] = {}
        for first, _, path in self.ranges:
            self.start.setdefault(path, first)

    def instructions(self, address: int, count: int) -> tuple[int, list[str]]:
        """Returns an address's offset in its file and the next `count` instructions there; none if it is in no file."""
        for first, last, path in self.ranges:
            if first <= address < last:
                offset = address - self.start[path]
                limits = [f"--start-address={offset}", f"--stop-address={offset + 4 * count}"]
                command = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", *limits, path]
                listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                return offset, [line.replace("\t", " ") for line in re.findall(r"^\s*[0-9a-f]+:\t(.*)$", listing, re.M)]
        return address, []


def cycles(mca: str, core: str, loop: Iterable[str], *, iterations: int = 100) -> float:
    """Returns the cycles that llvm-mca expects for one iteration of a loop.

    mca: the program; core: a key of CORES; loop: the instructions, of which the last jumps back to the first.
    """
    lines = [line.split("//")[0].split("<")[0].strip() for line in loop]
    lines[-1] = re.sub(r"[0-9a-f]+$", ".L0", lines[-1])
    command = [mca, "-mtriple=aarch64", f"-mcpu={core}", "-mattr=+all", f"-iterations={iterations}"]
    text = ".L0:\n" + "\n".join(lines) + "\n"
    done = subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Total Cycles:\s+(\d+)", done)
    assert found is not None
    return int(found[1]) / iterations


def join_pages(blocks: Counter[tuple[int, int]]) -> None:
    """Joins blocks of instructions that qemu cut at the border of a page, so that a loop across it is one block again.

    blocks: (address, number of instructions) -> how often the block ran.
    """
    starts = dict(blocks.keys())  # of each block its address and its number of instructions
    for address, size in list(blocks):
        end = address + 4 * size
        if end % 4096 == 0 and end in starts:
            both = min(blocks[address, size], blocks[end, starts[end]])
            blocks[address, size] -= both
            blocks[end, starts[end]] -= both
            blocks[address, size + starts[end]] += both


def modelled(counts: Path, modules: Modules, mca: str) -> dict[str, Any]:
    """Returns what the model says of one run of a network: its instructions, cycles for each core, and hot loops.

    counts: the file that the plugin wrote for this run; mca: the program llvm-mca.
    """
    blocks: Counter[tuple[int, int]] = Counter()
    for line in counts.read_text().splitlines():
        address, size, times = map(int, line.split())
        blocks[address, size] += times
    join_pages(blocks)
    total = sum(size * times for (_, size), times in blocks.items())
    result: dict[str, float] = dict.fromkeys(CORES, 0.0)
    loops = []
    for (address, size), times in blocks.most_common():
        offset, body = modules.instructions(address, size) if size * times >= HOT * total else (0, [])
        jump = _BRANCH.match(body[-1]) if body else None
        hot = jump is not None and int(jump[1], 16) == offset
        each = {core: cycles(mca, core, body) if hot else size / 2 for core in CORES}
        for core in CORES:
            result[core] += times * each[core]
        if hot:
            kind = Counter(line.split()[0] for line in body).most_common(1)[0][0]
            loops.append({"instructions": size, "mostly": kind, "times": times, "cycles": each})
    loops.sort(key=lambda loop: -loop["instructions"] * loop["times"])
    return {"instructions": total, "cycles": {core: round(value) for core, value in result.items()}, "loops": loops}


def write_networks(folder: Path, names: Iterable[str]) -> list[Path]:
    """Writes ONNX files of the student and the teacher of each network; returns their paths.

    The weights are random, because the time does not depend on them.
    """
    files = []
    for name in names:
        for role, options in (("student", {"binary": "recu"}), ("teacher", {})):
            torch.manual_seed(0)
            model = MODELS[name](10, input_shape=(3, 32, 32), **options).eval()
            files.append(to_onnx(model, folder / f"{name}_{role}.onnx", input_shape=(3, 32, 32)))
    return files


def run_counted(folder: Path, arm64: Path, qemu: str, files: Iterable[Path]) -> Modules:
    """Runs each file under qemu, which writes the counts of the i-th file into FOLDER/counts.{2 i + 1}."""
    sys.path.insert(0, str(HERE.parent / "export/runtime/native/src"))
    import building

    os.environ["CXX"] = "aarch64-linux-gnu-g++"
    library = building.compile_library(folder)
    plugin = folder / "count.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(HERE / "arm_count.c"), "-o", str(plugin)], check=True)
    (folder / "guest.py").write_text(_GUEST)
    command = [qemu, "-cpu", "neoverse-n1", "-L", str(arm64 / "debian"), "-plugin", f"{plugin},out={folder / 'counts'}"]
    command += ["-E", f"PYTHONPATH={arm64 / 'site'}", str(arm64 / "debian/usr/bin/python3"), str(folder / "guest.py")]
    done = subprocess.run([*command, str(library), *map(str, files)], check=True, stdout=subprocess.PIPE, text=True)
    return Modules(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm64", type=Path, help="the folder that .ci/arm64 makes")
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet20"])
    parser.add_argument("--qemu", default="qemu-aarch64", help="a qemu-user that supports plugins")
    parser.add_argument("--mca", default="llvm-mca-19")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    arguments = parser.parse_args()
    version = subprocess.run([arguments.mca, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"LLVM version \S+", version)
    report: dict[str, Any] = {"llvm": found[0] if found else version, "cores": CORES, "networks": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_networks(folder, arguments.networks)
        modules = run_counted(folder, arguments.arm64.resolve(), arguments.qemu, files)
        for i, file in enumerate(files):
            name, _, role = file.stem.rpartition("_")
            counts = folder / f"counts.{2 * i + 1}"
            report["networks"].setdefault(name, {})[role] = modelled(counts, modules, arguments.mca)
    rows: list[dict[str, str]] = []
    for name, roles in report["networks"].items():
        roles["ratio"] = {c: round(roles["teacher"]["cycles"][c] / roles["student"]["cycles"][c], 2) for c in CORES}
        for core, taken in CORES.items():
            row = {"network": name, "model (core)": f"{core} ({taken})"}
            row |= {f"{role}, Mcycles": f"{roles[role]['cycles'][core] / 1e6:.2f}" for role in ("teacher", "student")}
            rows.append({**row, "times": f"{roles['ratio'][core]:.1f}"})
    print_table(rows)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
