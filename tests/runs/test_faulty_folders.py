"""A run's folder that may not be written or read, or holds a damaged checkpoint: which file, and what to do."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import TINY

from bnn_itrd.cli import main
from bnn_itrd.training.checkpoint import load_checkpoint

SMALL = [
    *TINY, "--network.name=resnet8", "--network.width=0.25", "--data.image_size=8", "--log.tensorboard=false",
    "--report=false",
]  # fmt: skip


def train(npz: Path, out: Path, *options: str) -> int:
    return main(["train", "digits", *SMALL, "--member=teacher", f"--data.root={npz}", f"--out={out}", *options])


@pytest.fixture(scope="module")
def trained(tiny_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    assert train(tiny_npz, out) == 0
    return out


@pytest.fixture
def out(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "out"))


# ---- what may not be written or read


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def as_any_user() -> Iterator[None]:
    """Takes from root the two capabilities that let it read and write whatever the modes of files say."""
    if os.geteuid() != 0:
        yield
        return
    libc, header, sets = ctypes.CDLL(None), _Header(0x20080522, 0), (_Capabilities * 2)()
    if libc.capget(ctypes.byref(header), sets) != 0:
        pytest.skip("root's capabilities cannot be read here")
    before = sets[0].effective
    sets[0].effective &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(ctypes.byref(header), sets) == 0
    try:
        yield
    finally:
        sets[0].effective = before
        assert libc.capset(ctypes.byref(header), sets) == 0


@contextlib.contextmanager
def forbidden(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with as_any_user():
            yield
    finally:
        path.chmod(before)


@pytest.mark.parametrize("place", ["parent", "folder"])
def test_a_folder_that_may_not_be_written(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    out = locked / "out" if place == "parent" else locked
    with forbidden(locked, 0o555):
        assert train(tiny_npz, out) == 2
    said = capsys.readouterr().err
    first = out if place == "parent" else out / "teacher"
    assert f"bnn-itrd: cannot write {first}: [Errno 13] Permission denied" in said
    assert said.endswith(". Choose another --out, one that you may write to\n") and not list(locked.iterdir())


def test_a_run_whose_folder_became_forbidden_keeps_what_it_has(
    tiny_npz: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (out / "teacher").iterdir()}
    with forbidden(out / "teacher", 0o555):
        assert train(tiny_npz, out) == 2
    assert f"cannot write {out}/teacher/status.json" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (out / "teacher").iterdir()} == before


def test_a_checkpoint_that_may_not_be_read(tiny_npz: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = out / "teacher" / "last.pt"
    with forbidden(last, 0):
        for command in (lambda: train(tiny_npz, out), lambda: main(["evaluate", str(out / "teacher")])):
            assert command() == 2
            expected = f"bnn-itrd: [Errno 13] Permission denied: '{last}'. Look at who may read and write it (ls -ld)\n"
            assert capsys.readouterr().err.endswith(expected)


def test_data_that_may_not_be_read(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copy(tiny_npz, tmp_path))
    with forbidden(data, 0):
        assert train(data, tmp_path / "out") == 2
    expected = f"bnn-itrd: [Errno 13] Permission denied: '{data}'. Look at who may read and write it (ls -ld)\n"
    assert capsys.readouterr().err.endswith(expected)


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_file_where_the_folder_should_be(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: str
) -> None:
    file = tmp_path / "file"
    file.write_text("a user's own")
    assert train(tiny_npz, file / inside) == 2
    assert f"cannot write {file / inside}: " in capsys.readouterr().err
    assert file.read_text() == "a user's own"


# ---- a damaged last.pt


def flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


DAMAGES = {
    "a flipped bit": (flipped, "{} is damaged: its checksum does not fit its contents"),
    "half of it": (
        lambda data: data[: len(data) // 2],
        "{} cannot be read as a checkpoint (is it cut short?): its {:,} bytes are no archive of torch.save",
    ),
    "without its seal": (
        lambda data: data[:-90],
        "{} cannot be read as a checkpoint (is it cut short?): its {:,} bytes are no archive of torch.save",
    ),
    "nothing": (
        lambda data: b"",
        "{} cannot be read as a checkpoint (is it cut short?): its 0 bytes are no archive of torch.save",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_is_named_and_left_alone(
    tiny_npz: Path, out: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """By the commands that continue the run, that take it as a teacher, and that read it."""
    last, (spoil, message) = out / "teacher" / "last.pt", DAMAGES[damage]
    last.write_bytes(spoil(last.read_bytes()))
    before = {path.name: path.read_bytes() for path in last.parent.iterdir()}
    whole = ["run", "digits", *SMALL, f"--data.root={tiny_npz}", f"--out={out}"]
    student = ["train", *whole[1:], "--member=recu"]
    said = f"{message.format(last, last.stat().st_size)}. Use another copy of it, or remove it and train again\n"
    for command in (whole, student, ["evaluate", str(last.parent)]):
        assert main(command) == 2
        assert capsys.readouterr().err.endswith(said), command
    assert {path.name: path.read_bytes() for path in last.parent.iterdir()} == before
    assert not (out / "recu").exists()


def test_without_it_the_same_command_trains_again(tiny_npz: Path, out: Path) -> None:
    last = out / "teacher" / "last.pt"
    before = load_checkpoint(last)["model"]
    last.unlink()
    assert train(tiny_npz, out) == 0
    after = load_checkpoint(last)["model"]
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_folder_in_the_place_of_a_checkpoint(tiny_npz: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = out / "teacher" / "last.pt"
    last.unlink()
    last.mkdir()
    assert train(tiny_npz, out) == 2
    assert capsys.readouterr().err.endswith(f"bnn-itrd: {last} is a folder, not a checkpoint: remove it\n")
