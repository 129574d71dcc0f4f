"""One damaged file after the other in this process: made, opened, and judged by how that ended."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from faults.kinds import KINDS
from faults.outcomes import Silent, Tally

__all__ = ["MOST_GIB", "MOST_SECONDS", "open_case", "open_here", "prepared"]

# Of one case, with files of kilobytes: seconds of the processor, and memory beyond what the process had.
MOST_SECONDS, MOST_GIB = 20.0, 1.0


def prepared(kind: str, place: Path) -> Path:
    """Returns the folder of the good files of a kind, below `place`; makes them where they are not there yet."""
    good = place / "good"
    if not good.is_dir():
        making = place / "making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        KINDS[kind].prepare(making)
        making.rename(good)
    return good


def _memory(name: str) -> int:
    """VmHWM, VmRSS or VmSize in bytes; 0 where the system does not say it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _forget_peak() -> int:
    """Resets the peak of memory, where the system can; returns what there is now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _memory("VmHWM")
    return _memory("VmRSS")


def open_case(
    kind: str, place: Path, seed: int, number: int, *, begin: Callable[[Path], None] = lambda file: None
) -> tuple[str, str, Path]:
    """Makes a damaged file and opens it: (how it ended, what was seen where that is a finding, the file).

    begin: is called with the file before it is opened. The file of a finding stays, others are removed.
    """
    good, cases = prepared(kind, place), place / "cases"
    cases.mkdir(exist_ok=True)
    name, data, how = KINDS[kind].mutate(good, np.random.default_rng([seed, number]))
    path = cases / f"{seed}-{number}-{name}"
    path.write_bytes(data)
    begin(path)
    before, began = _forget_peak(), time.process_time()
    words = ""
    try:
        end = KINDS[kind].open(path, good, how, number)
    except Silent as error:
        end, words = "silent", f"{how}: {error}"
    except Exception as error:
        end, words = "traceback", f"{how}: {''.join(traceback.format_exception(error))[-1500:]}"
    seconds, gib = time.process_time() - began, (_memory("VmHWM") - before) / 2**30
    if seconds > MOST_SECONDS or gib > MOST_GIB:
        end, words = "limit", f"{how}: {seconds:.1f} s, {gib:.2f} GiB {words}"
    if not words:
        path.unlink()
    return end, words, path


def open_here(kind: str, cases: int, place: Path, *, seed: int = 0) -> Tally:
    """Opens so many damaged files in this process, which a crash would end: `batches.open_damaged` sees one."""
    tally = Tally(kind)
    for number in range(cases):
        tally.add(*open_case(kind, place, seed, number))
    return tally
