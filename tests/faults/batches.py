"""Damaged files in processes of their own: one that dies is a crash, one that stands still is stopped."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from faults.outcomes import Tally

__all__ = ["open_damaged"]

_WORKER = Path(__file__).with_name("worker.py")
# Of the clock, for one case: a machine may be busy, so this is far above what a case may take of the processor.
_STANDS_STILL = 180.0
_STARTS = 600.0


def open_damaged(
    kind: str, cases: int, folder: Path, *, seed: int = 0, first: int = 0, deadline: float | None = None
) -> Tally:
    """Opens so many damaged files of a kind (see `kinds.KINDS`) and counts what became of them.

    folder: holds the good files, and keeps those of cases that did not end well. deadline: a time of
    `time.monotonic`, at which no further case is begun.
    """
    tally, number, last = Tally(kind), first, first + cases
    place = folder / kind
    place.mkdir(parents=True, exist_ok=True)
    while number < last and (deadline is None or time.monotonic() < deadline):
        number = _batch(kind, place, seed, number, last, deadline, tally)
    return tally


def _batch(kind: str, place: Path, seed: int, start: int, stop: int, deadline: float | None, tally: Tally) -> int:
    """Runs one process as far as it comes; returns the next case."""
    words = place / "errors.txt"
    with words.open("wb") as errors:
        command = [sys.executable, str(_WORKER), kind, str(place), str(seed), str(start), str(stop)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
    number, file = start, None
    try:
        for line in _lines(process):
            if line is None:
                tally.add("limit", f"case {number} stood still and was stopped", file)
                return number + 1
            told = json.loads(line)
            if "begin" in told:
                number, file = told["begin"], Path(told["file"])
            elif "end" in told:
                tally.add(told["end"], told["words"], file)
                number, file = number + 1, None
                if deadline is not None and time.monotonic() >= deadline:
                    break
        else:
            process.wait()
            if process.returncode != 0 or number < stop:
                last = words.read_text(errors="replace")[-1500:]
                if file is None:
                    raise RuntimeError(
                        f"the process of {kind} ended with {process.returncode} outside of a case:\n{last}"
                    )
                tally.add("crash", f"case {number} ended the process with {process.returncode}:\n{last}", file)
                number += 1
            return number
        process.kill()
        process.wait()
        for begun in (place / "cases").glob(f"{seed}-{number}-*"):  # by then it is at the next
            shutil.rmtree(begun, ignore_errors=True)
            begun.unlink(missing_ok=True)
        return number
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """The lines of a process as they come; None where it stands still."""
    assert process.stdout is not None
    handle, rest, wait = process.stdout.fileno(), b"", _STARTS
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while True:
            if not selector.select(wait):
                yield None
                return
            got = os.read(handle, 65536)
            if not got:
                return
            wait = _STANDS_STILL
            *whole, rest = (rest + got).split(b"\n")
            yield from whole
