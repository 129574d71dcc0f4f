"""The number of CPU threads of a training, which is limited to the CPU time that a container gives it.

torch's threads wait for each other. In a container that may use the time of two processors, on a machine with 64, a
training with 64 threads is many times slower than one with two.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import torch

from bnn_itrd.words import counted

__all__ = ["busy_note", "cpu_quota", "set_threads"]


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Returns how many processors' time this process may use by Linux's control groups; None without a limit.

    The smallest limit of its group and all groups above it counts. root: the folder that contains proc and sys.
    """
    limits = []
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                limits += _quotas(root / "sys/fs/cgroup", path, version=2)
                limits += _quotas(root / "sys/fs/cgroup/unified", path, version=2)
            elif "cpu" in controllers.split(","):
                limits += _quotas(root / "sys/fs/cgroup/cpu", path, version=1)
    return min(limits, default=None)


def _quotas(top: Path, path: str, *, version: int) -> list[float]:
    """Returns the limits of a control group and of the groups above it, in processors."""
    found, group = [], top / path.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(top):
            break
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and int(quota) > 0:
                found.append(int(quota) / int(period))
    return found


def set_threads(wanted: int | None, *, processes: int = 1, quota: float | None = None) -> str | None:
    """Sets torch's number of threads; returns a line about it if that is smaller than torch's own number.

    wanted: the number, whatever the quota (``fabric.threads``); None: torch's own number, but no more than the quota
    allows for each of the processes on this machine.

    >>> before = torch.get_num_threads()
    >>> set_threads(2), torch.get_num_threads()
    (None, 2)
    >>> set_threads(None, quota=1.5)
    '1 thread instead of 2: the control group has time for 1.5 processors; --fabric.threads N sets another number'
    >>> set_threads(before)
    """
    if wanted is not None:
        torch.set_num_threads(wanted)
        return None
    usual = torch.get_num_threads()
    if quota is None or (fitting := max(1, math.floor(quota / processes + 0.01))) >= usual:
        return None
    torch.set_num_threads(fitting)
    return (
        f"{counted(fitting, 'thread')} instead of {usual}: the control group has time for {quota:g} "
        f"processor{'' if quota == 1 else 's'}; --fabric.threads N sets another number"
    )


def busy_note(threads: int) -> str | None:
    """Returns a note if other processes keep this machine busy, so that threads would wait for each other."""
    try:
        load, processors = os.getloadavg()[0], len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return None
    if threads == 1 or load < 1.5 * processors:
        return None
    return (
        f"{load:.0f} processes are at work on the {counted(processors, 'processor')} of this machine: {threads} "
        "threads that wait for each other may be many times slower than one (--fabric.threads 1)"
    )
