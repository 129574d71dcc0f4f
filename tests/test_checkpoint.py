"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnn_itrd.errors import UserError
from bnn_itrd.files import write_file
from bnn_itrd.training.checkpoint import load_checkpoint, save_checkpoint


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.pt"
    save_checkpoint(path, {"x": torch.arange(3), "n": [1, {"a": None}]})
    state = load_checkpoint(path)
    assert torch.equal(state["x"], torch.arange(3)) and state["n"] == [1, {"a": None}]
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"x": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.pt: .*No space left.*is untouched"):
        save_checkpoint(path, {"x": 2})
    assert load_checkpoint(path)["x"] == 1 and list(tmp_path.iterdir()) == [path]


_FILL = """
import resource, sys, torch
from pathlib import Path
from bnn_itrd.training.checkpoint import save_checkpoint
from bnn_itrd.errors import UserError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # what a full disk does: a write that comes back short
try:
    save_checkpoint(Path(sys.argv[1]), {"x": torch.zeros(1_000_000)})
except UserError as error:
    print(error)
"""


def test_a_write_that_really_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"x": 1})
    done = subprocess.run([sys.executable, "-c", _FILL, str(path)], capture_output=True, text=True, timeout=120)
    assert "cannot write" in done.stdout and "untouched" in done.stdout, done.stdout + done.stderr
    assert load_checkpoint(path)["x"] == 1 and list(tmp_path.iterdir()) == [path]


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    def broken(file: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        write_file(tmp_path / "a", broken)
    assert not list(tmp_path.iterdir())


def test_no_code_is_run_when_reading(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"format": 1, "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
