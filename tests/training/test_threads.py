"""Threads fit the processors that a container may use; a busy machine is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bnn_itrd.config.train import FabricConfig
from bnn_itrd.training import fabric as fabrics
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.threads import busy_note, cpu_quota, set_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield before
    torch.set_num_threads(before)


def system(root: Path, groups: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu-max": "max 100000\n"}, None),
        ("0::/\n", {"cpu-max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"a__cpu-max": "150000 100000\n", "a__b__cpu-max": "300000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a__cpu-max": "max 100000\n", "a__b__cpu-max": "50000 100000\n"}, 0.5),
        ("4:cpu,cpuacct:/x\n", {"cpu__x__cpu-cfs_quota_us": "-1\n", "cpu__x__cpu-cfs_period_us": "100000\n"}, None),
        ("4:cpu,cpuacct:/x\n", {"cpu__x__cpu-cfs_quota_us": "400000\n", "cpu__x__cpu-cfs_period_us": "100000\n"}, 4.0),
        ("3:cpuset:/x\n", {"cpu__x__cpu-cfs_quota_us": "400000\n", "cpu__x__cpu-cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu-max": "what 0\n"}, None),
        ("nothing of the kind\n", {"cpu-max": "100000 100000\n"}, None),
    ],
)
def test_the_quota_of_control_groups(
    groups: str, files: dict[str, str], expected: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(system(tmp_path, groups, **files)) == expected


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "processes", "expected"), [(None, 1, 4), (8.0, 1, 4), (4.0, 1, 4), (2.9, 1, 2), (0.5, 1, 1), (4.0, 2, 2)]
)
def test_threads_fit_the_quota(quota: float | None, processes: int, expected: int) -> None:
    said = set_threads(None, processes=processes, quota=quota)
    assert torch.get_num_threads() == expected
    assert (said is None) == (expected == 4)


def test_a_number_that_is_given_is_kept() -> None:
    assert set_threads(3, quota=1.0) is None and torch.get_num_threads() == 3


def test_a_training_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(fabrics, "cpu_quota", lambda: 2.0)
    make_fabric(FabricConfig(accelerator="cpu"))
    expected = "2 threads instead of 4: the control group has time for 2 processors; --fabric.threads "
    assert capsys.readouterr().out.startswith(expected)
    make_fabric(FabricConfig(accelerator="cpu"))  # of the same command: they are two already
    assert capsys.readouterr().out == "" and torch.get_num_threads() == 2


def test_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "getloadavg", lambda: (5.2, 1.0, 1.0))
    said = busy_note(2)
    assert said is not None and said.startswith(
        "5 processes are at work on the 2 processors of this machine: 2 threads"
    )
    assert busy_note(1) is None
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 9.0, 9.0))
    assert busy_note(2) is None
