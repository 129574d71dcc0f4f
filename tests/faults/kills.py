"""Processes killed (SIGKILL) at their writes: the same command must then give what it gives without a kill."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers import write_npz

from faults.outcomes import OPENED, Tally
from faults.states import SMALL_RUN, same_state

__all__ = ["COMMANDS", "KillServer", "differences_of_runs", "kill_at_writes"]

_SERVER = Path(__file__).with_name("kill_server.py")
# Two epochs with a held-out split, a moving average, and a student that learns from its teacher.
_FIELDS = [*SMALL_RUN, "--train.ema=0.9", "--data.val_fraction=0.25"]
_SWEEP = [field for field in SMALL_RUN if not field.startswith("--report")]
# What is killed; each takes --data.root and --out.
COMMANDS = {
    "run": ["run", "digits", *_FIELDS],
    "sweep": ["sweep", "digits", *_SWEEP, "--train.epochs=1", "--log.tensorboard=false", "--methods", "kd",
              "--grid", "train.seed=0,1"],
}  # fmt: skip
# How long something took is another number each time.
_TIMES = ("seconds", "images_per_s")


class KillServer:
    """The process that runs commands and kills them; see `kill_server`. A context."""

    def __enter__(self) -> KillServer:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()
        return self

    def __exit__(self, *ended: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of kills ended with {self._process.wait()}")
        return dict(json.loads(line))

    def run(
        self,
        argv: Sequence[str],
        folder: Path,
        *,
        kill: int | None = None,
        torn: bool = False,
        moment: float | None = None,
    ) -> tuple[int, list[str]]:
        """(exit status, or minus the signal; what it did to the files of the folder) of `bnn-itrd ARGV`."""
        task = {"argv": [*map(str, argv)], "folder": str(folder), "log": str(folder) + ".log"}
        assert self._process.stdin is not None
        print(json.dumps({**task, "kill": kill, "torn": torn, "moment": moment}), file=self._process.stdin, flush=True)
        answer = self._answer()
        return answer["status"], answer["events"]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in _TIMES}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_times, value))
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _read(path: Path) -> Any:
    from bnn_itrd.training.checkpoint import load_checkpoint

    match path.suffix:
        case ".pt":
            return load_checkpoint(path)
        case ".json":
            return json.loads(path.read_text())
        case ".csv":
            with path.open(newline="") as file:
                return list(csv.DictReader(file))
        case ".md":  # the table of a sweep: no times in it
            return path.read_text()
        case ".yaml":
            return path.read_text().replace(str(path.parent), "")
    return None


def _files(folder: Path) -> dict[str, Path]:
    """Its files without TensorBoard's, which each process begins anew."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and "tensorboard" not in p.parts)
    return {str(p.relative_to(folder)): p for p in found}


def differences_of_runs(whole: Path, resumed: Path) -> list[str]:
    """Returns in what two folders of a run or a sweep differ but in times: files, weights bit for bit, every number."""
    a, b = _files(whole), _files(resumed)
    told = [f"{name} is {'missing' if name in a else 'left over'}" for name in sorted(a.keys() ^ b.keys())]
    for name in sorted(a.keys() & b.keys()):
        try:
            if not same_state(_without_times(_read(a[name])), _without_times(_read(b[name]))):
                told.append(f"{name} differs")
        except Exception as error:  # half a file
            told.append(f"{name} cannot be read: {error}")
    return told


@dataclass(frozen=True)
class _Kill:
    """In front of an event of the command, or after seconds; again: once more, while it continues."""

    event: int | None
    torn: bool = False
    moment: float | None = None
    again: int | None = None


def _points(events: Sequence[str], rng: np.random.Generator) -> Iterator[_Kill]:
    """Every event, in an order that comes to all parts of the command early; then random moments, without an end."""
    order = rng.permutation(len(events))
    for at in order:
        yield _Kill(int(at), again=int(rng.integers(len(events))) if rng.random() < 0.3 else None)
        if events[at].startswith("os.rename"):
            yield _Kill(int(at), torn=True)
    while True:
        yield _Kill(None, moment=float(rng.uniform(0.1, 3.0)), again=int(rng.integers(len(events))))


def kill_at_writes(
    command: str,
    folder: Path,
    *,
    cases: int | None = None,
    seed: int = 0,
    deadline: float | None = None,
    server: KillServer | None = None,
    only: Sequence[str] = (),
) -> Tally:
    """Kills a command of `COMMANDS` at its writes, and holds what the same command makes of the rest against a whole.

    cases: how many kills; every write, and every rename with half a file, by default. deadline: see `open_damaged`.
    only: the kills whose event holds one of these texts.
    """
    root = f"--data.root={write_npz(folder / f'{command}.npz')}"
    with contextlib.ExitStack() as stack:
        server = server or stack.enter_context(KillServer())
        whole, tally = folder / f"{command}-whole", Tally(f"kills of a {command}")
        argv = [*COMMANDS[command], root]
        status, events = server.run([*argv, f"--out={whole}"], whole)
        if status:
            raise RuntimeError(f"the {command} that is to be killed ended with {status}: see {whole}.log")
        for number, kill in enumerate(_points(events, np.random.default_rng(seed))):
            past = deadline is not None and time.monotonic() >= deadline
            if past or tally.cases == cases or (kill.event is None and (only or cases is None)):
                break
            if not only or any(text in events[kill.event or 0] for text in only):
                out = folder / f"{command}-{seed}-{number}"
                _one(server, argv, whole, out, kill, tally, "" if kill.event is None else events[kill.event])
    return tally


def _one(server: KillServer, argv: list[str], whole: Path, out: Path, kill: _Kill, tally: Tally, event: str) -> None:
    command = [*argv, f"--out={out}"]
    statuses = [server.run(command, out, kill=kill.event, torn=kill.torn, moment=kill.moment)[0]]
    if kill.again is not None:
        statuses.append(server.run(command, out, kill=kill.again)[0])
    status, _ = server.run(command, out)
    log = Path(f"{out}.log")
    told = f"killed {kill} ({event}), ended with {statuses}, then {status}: "
    if status:
        last = log.read_text(errors="replace")[-1500:]
        tally.add("traceback" if "Traceback" in last else "silent", f"{told}{last}", out)
    elif differing := differences_of_runs(whole, out):
        tally.add("silent", told + "; ".join(differing), out)
    else:
        tally.add(OPENED)
        shutil.rmtree(out)
        log.unlink()
