"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bnn_itrd.errors import UserError
from bnn_itrd.files import write_file
from bnn_itrd.training.checkpoint import check_undamaged, load_checkpoint, save_checkpoint


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
    with pytest.raises(UserError, match=r"cannot write .*a\.pt: .*No space left.*is unchanged"):
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
    assert "cannot write" in done.stdout and "is unchanged" in done.stdout, done.stdout + done.stderr
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


def _small_training() -> dict:
    """A network with running statistics and its optimiser, after a step: what a checkpoint holds."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(4, 4)).square().sum().backward()
    optimizer.step()
    return {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}


def _flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def _same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, torch.Tensor):  # bit for bit, a NaN too
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    return a == b


def test_a_flipped_bit_in_a_sealed_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", _small_training())
    whole, damaged = (tmp_path / "a.pt").read_bytes(), tmp_path / "b.pt"
    # Behind the last byte of the archive stands the mark of the seal, without which it is one that is not sealed.
    mark = len(whole) - 64 - len(b"bnn-itrd sha256 ")
    for bit in random.Random(0).sample(range(8 * mark), 100):
        damaged.write_bytes(_flipped(whole, bit))
        with pytest.raises(UserError, match=r"b\.pt is damaged: its checksum does not fit"):
            load_checkpoint(damaged)
    expected = load_checkpoint(tmp_path / "a.pt")
    for bit in range(8 * mark, 8 * len(whole), 19):  # in the seal: refused, or the same network
        damaged.write_bytes(_flipped(whole, bit))
        with contextlib.suppress(UserError):
            assert _same(load_checkpoint(damaged), expected)


def test_a_checkpoint_without_a_seal_is_read_and_its_flipped_bits_are_refused(tmp_path: Path) -> None:
    """Of an older version, or a copy that another script wrote with torch.save."""
    state = {"format": 1, **_small_training()}
    torch.save(state, tmp_path / "old.pt")
    assert _same(load_checkpoint(tmp_path / "old.pt"), state)
    whole, damaged = (tmp_path / "old.pt").read_bytes(), tmp_path / "b.pt"
    refused = 0
    for bit in random.Random(0).sample(range(8 * len(whole)), 100):
        damaged.write_bytes(_flipped(whole, bit))
        try:
            assert _same(load_checkpoint(damaged), state)  # a bit that stands between the parts
        except UserError:
            refused += 1
    assert refused > 50


def test_a_copy_without_the_optimiser_loads_and_is_sealed_again(tmp_path: Path) -> None:
    """torch alone reads a sealed file; what it writes of it is read, and sealed where it is saved here."""
    save_checkpoint(tmp_path / "last.pt", _small_training())
    state = torch.load(tmp_path / "last.pt", map_location="cpu", weights_only=True)
    state["optimizer"]["state"] = {}
    torch.save(state, tmp_path / "slim.pt")
    copy = load_checkpoint(tmp_path / "slim.pt")
    assert copy["optimizer"]["state"] == {} and _same(copy["model"], state["model"])
    save_checkpoint(tmp_path / "again.pt", copy)
    check_undamaged(tmp_path / "again.pt")
    assert b"bnn-itrd sha256 " not in (tmp_path / "slim.pt").read_bytes()
    assert (tmp_path / "again.pt").read_bytes()[-80:-64] == b"bnn-itrd sha256 "
    assert _same(load_checkpoint(tmp_path / "again.pt"), copy)
