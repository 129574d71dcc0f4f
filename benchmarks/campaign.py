"""Tests for a given time that faults do no harm (docs/maintain/promises.md); the test suite has a short form of it.

    python benchmarks/campaign.py --minutes 25

It kills trainings and sweeps while they write files, opens damaged files of every kind in separate processes, and runs
the native library under compiler sanitizers, with every kernel that the processor can run. At its end is a table.
The exit status is 1 if a process crashed, a damaged file silently gave another result, a user would have seen a
traceback, or a case took more time or memory than its size justifies. The files of these cases are kept, and their
folder is printed.

--only PART ...: just these parts; --seed N: other cases; --json FILE: write counts and findings; --keep FOLDER: where
the files of findings are kept. Ctrl-C ends the campaign and prints the table of the finished parts. The same seed gives
the same cases again, so part, seed and number identify a case.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faults.batches import open_damaged
from faults.kills import kill_at_writes
from faults.native import compile_sanitized, open_operators, operator_files, run_kernels, why_no_sanitizers
from faults.outcomes import FINDINGS, OPENED, REFUSED, Tally

__all__ = ["PARTS", "main", "processor"]

# Part -> its share of the time, as a weight.
PARTS = {
    "kill-run": 16,
    "kill-sweep": 12,
    "onnx": 36,
    "checkpoints": 8,
    "tflite": 5,
    "images": 4,
    "yaml": 6,
    "json": 4,
    "states": 3,
    "native": 9,
}
# A process opens this many files and is then replaced by a new one, so that memory leaks do not add up.
_BATCH = 2000


def processor() -> str:
    """Returns one line of text: the processor, its cores, its best kernel, and the versions of Python and libraries."""
    import onnxruntime
    import torch

    from bnn_itrd.export.runtime.native import kernel, library_path

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    best = kernel() if library_path() else "none: there is no native library"
    return (
        f"{name}, {os.cpu_count()} cores, kernels up to {best}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, onnxruntime {onnxruntime.__version__}"
    )


def _damaged(part: str, folder: Path, seed: int, deadline: float) -> Tally:
    """Opens damaged files of one kind until the deadline; returns the counts of the results."""
    whole = Tally(part)
    while time.monotonic() < deadline:
        tally = open_damaged(part, _BATCH, folder, seed=seed, first=whole.cases, deadline=deadline)
        whole.ends += tally.ends
        whole.findings += tally.findings
    return whole


def _killed(part: str, folder: Path, seed: int, deadline: float) -> Tally:
    """Kills runs or sweeps until the deadline and continues them; returns the counts of the results."""
    place = folder / part
    place.mkdir()
    cases = 10**9  # first at every write, then at random moments until the deadline
    return kill_at_writes(part.removeprefix("kill-"), place, cases=cases, seed=seed, deadline=deadline)


def _native(part: str, folder: Path, seed: int, deadline: float) -> Tally:
    """Runs malformed operators in the installed native library, and in one with sanitizers, until the deadline."""
    from bnn_itrd.export.runtime.native import kernel, library_path, why_unavailable
    from bnn_itrd.export.runtime.native.direct import KERNELS

    tally, place = Tally(part), folder / part
    place.mkdir()
    library = library_path()
    if library is None:
        tally.skipped = f"no native library: {why_unavailable()}"
        return tally
    families = KERNELS[: KERNELS.index(kernel()) + 1]
    files, tally.skipped = operator_files(place), why_no_sanitizers()
    sanitized = None if tally.skipped else compile_sanitized(place)
    turn = seed
    while time.monotonic() < deadline:
        family, count = families[turn % len(families)], 100
        try:
            for tried in (library, sanitized):
                if tried is not None:
                    options = {"seed": turn, "kernel": family, "sanitized": tried is sanitized}
                    ran, refused = open_operators(tried, files, count, **options)
                    tally.ends[OPENED] += ran
                    tally.ends[REFUSED] += refused
            if sanitized is not None:
                tally.ends[OPENED] += run_kernels(sanitized, families, count, seed=turn)
        except AssertionError as error:
            tally.add("crash", f"turn {turn}: {error}", place)
        turn += 1
    return tally


def _run_of(part: str) -> Callable[[str, Path, int, float], Tally]:
    """Returns the function that runs a part."""
    return _native if part == "native" else _killed if part.startswith("kill-") else _damaged


def _print(tallies: list[Tally], minutes: float, seed: int, folder: Path) -> None:
    """Prints the table of all parts, and each finding with its file."""
    from bnn_itrd.console import print_table

    print_table([tally.row() for tally in tallies])
    print(f"{processor()}; {minutes:.0f} minutes, seed {seed}")
    for tally in tallies:
        if tally.skipped:
            print(f"SKIPPED in {tally.part}: {tally.skipped}")
        if tally.failed:
            print(f"FAILED: an error of the campaign itself in the part {tally.part}: {tally.failed}")
        for finding in tally.findings:
            print(f"\n{tally.part}, {finding.kind}: {finding.file}\n{finding.words.strip()}")
    if any(tally.findings for tally in tallies):
        print(f"\nThe files of these findings: {folder}")


def main() -> int:
    """Runs the parts one after the other; returns the exit status, 1 if there is a finding or a part failed."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=25.0)
    p.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", type=Path)
    p.add_argument("--keep", type=Path)
    args = p.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = args.keep or Path(tempfile.mkdtemp(prefix="bnn_itrd-campaign-"))
    folder.mkdir(parents=True, exist_ok=True)
    began, tallies = time.monotonic(), []
    end = began + 60 * args.minutes
    for i, part in enumerate(args.only):
        # The time that a part does not use goes to the parts after it.
        left = sum(PARTS[name] for name in args.only[i:])
        deadline = time.monotonic() + (end - time.monotonic()) * PARTS[part] / left
        print(f"{part}: {(deadline - time.monotonic()) / 60:.1f} minutes", end="", flush=True)
        try:
            tallies.append(_run_of(part)(part, folder, args.seed, deadline))
        except KeyboardInterrupt:
            print(", stopped", flush=True)
            break
        except Exception as error:  # an error of the campaign itself must not lose the findings of other parts
            tallies.append(Tally(part, failed=f"{type(error).__name__}: {error}"))
        found = sum(tallies[-1].ends[kind] for kind in FINDINGS)
        print(f", {tallies[-1].cases:,} cases, {found} findings", flush=True)
    _print(tallies, (time.monotonic() - began) / 60, args.seed, folder)
    if args.json is not None:
        parts = [json.loads(tally.as_json()) for tally in tallies]
        report = {"processor": processor(), "minutes": args.minutes, "seed": args.seed, "parts": parts}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    found = any(tally.failed or tally.findings for tally in tallies)
    if not found and args.keep is None:
        shutil.rmtree(folder)
    return int(found)


if __name__ == "__main__":
    raise SystemExit(main())
