"""A process that is lost ends the others, also where they cannot notice, and only on the same machine."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bnn_itrd.errors import LostProcess
from bnn_itrd.training import lost_processes


def test_a_process_that_cannot_notice_is_ended_too(capfd: pytest.CaptureFixture[str]) -> None:
    """As one that waits in a communication which does not break: NCCL's."""
    lost = os.fork()
    if lost == 0:
        signal.pause()
        os._exit(70)
    child = os.fork()
    if child == 0:
        lost_processes._PATIENCE = 0.1
        lost_processes._Watch().begin([lost_processes._Process(1, 2, "here", lost, "")])
        signal.pause()
        os._exit(70)
    os.kill(lost, signal.SIGKILL)
    os.waitpid(lost, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == LostProcess.status == 3
    assert capfd.readouterr().err == f"bnn-itrd: {LostProcess(f'rank 1 of 2 (pid {lost} on here)')}\n"


def two(rank: int = 0) -> Any:
    return SimpleNamespace(global_rank=rank, world_size=2, barrier=lambda: None)


def test_a_process_that_is_lost_before_the_training_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def gathered(every: list[Any], own: Any) -> None:
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_gather_object", gathered)
    with pytest.raises(LostProcess, match="another process of this training"), lost_processes.ending_together(two()):
        raise AssertionError("the training does not begin")


@pytest.mark.parametrize(("other", "watched"), [({}, True), ({"host": "b"}, False), ({"numbering": "c"}, False)])
def test_processes_of_another_machine_are_not_watched(
    other: dict[str, str], watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines may have one name, and their processes the same numbers: each start of a system has one of its own."""

    def gathered(every: list[Any], own: Any) -> None:
        boot = Path("/proc/sys/kernel/random/boot_id")
        assert not boot.exists() or boot.read_text() in own.numbering
        every[:] = [own, dataclasses.replace(own, rank=1, **other)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gathered)
    found = lost_processes._others(two())
    assert [process.rank for process in found] == ([1] if watched and sys.platform == "linux" else [])
