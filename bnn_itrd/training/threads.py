"""Chooses the number of CPU threads of a training: no more than the container in which it runs has CPU time for.

By default torch uses a thread for each processor of the machine, and its threads wait for each other. If a container
may use the time of two processors on a machine with 64, a training with 64 threads is many times slower than with two.
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
    """Returns the CPU time that this process may use, as a number of processors; None if there is no limit.

    It is the smallest limit of the Linux control groups (cgroups) that the process is in; containers use them. `root`
    is the folder with proc and sys, which tests replace.
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
    """Returns the CPU limits of a Linux control group and of the groups above it, as numbers of processors."""
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
    """Sets torch's number of CPU threads; returns a line about it if it is smaller than torch's default.

    Args:
        wanted: number of threads that the user asks for (``fabric.threads``); None means torch's default, but no more
            than `quota` allows
        processes: number of processes on this machine that share the quota
        quota: CPU time that all may use together, as a number of processors; None means no limit

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
    """Returns a note if other processes keep this machine busy, so that torch's threads would wait for each other.

    `threads` is torch's number of threads. The result is None on an idle machine, with one thread, and outside Linux.
    """
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
