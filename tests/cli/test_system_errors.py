"""Errors of the system in words: a name too long, a reader that has gone, too few file descriptors, a full disk."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers import TINY
from torch import nn

from bnn_itrd import cli
from bnn_itrd.errors import UserError, remedy
from bnn_itrd.files import write_file
from bnn_itrd.runs.teachers import foreign
from bnn_itrd.training.checkpoint import load_checkpoint, save_checkpoint


def test_an_out_that_is_too_long(tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / ("x" * 300)
    assert cli.main(["train", "digits", *TINY, "--member=teacher", f"--data.root={tiny_npz}", f"--out={out}"]) == 2
    error = capsys.readouterr().err
    assert "File name too long" in error and error.endswith("Give a shorter name\n")


@pytest.mark.parametrize("command", ["evaluate", "summary", "compare", "export"])
def test_a_path_that_is_too_long(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "x" * 5000]) == 2
    assert capsys.readouterr().err.endswith("Give a shorter name\n")


def test_a_reader_that_has_gone() -> None:
    """``bnn-itrd recipes | head -0``: no trace, and nothing of the interpreter's own at its end."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "bnn_itrd.cli", "recipes"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_no_file_can_be_opened(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def command(argv: Sequence[str]) -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            Path("/etc/hostname").read_text()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return 0

    monkeypatch.setattr("bnn_itrd.cli.recipes.command", command)
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err.endswith("/etc/hostname'. Raise the limit on open files (ulimit -n)\n")


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Free some space or choose another --out"),
        (errno.EDQUOT, "Free some space or choose another --out"),
        (errno.EACCES, "Choose another --out, one that you may write to"),
        (errno.EROFS, "Choose another --out, one that you may write to"),
        (errno.ENAMETOOLONG, "Give a shorter name"),
        (errno.EMFILE, "Raise the limit on open files (ulimit -n)"),
        (errno.ENOENT, "Choose another --out"),
    ],
)
def test_a_hint_fits_its_cause(number: int, hint: str, tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(UserError) as caught:
        write_file(tmp_path / "a", fail)
    assert str(caught.value).endswith(f": [Errno {number}] {os.strerror(number)}. {hint}")
    assert remedy(OSError("without a number"), "other") == "other"


def test_an_accelerator_whose_library_is_missing(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY, "--fabric.accelerator=tpu", "--member=teacher", f"--data.root={tiny_npz}", f"--out={tmp_path}"]
    assert cli.main(["train", "digits", *options]) == 2
    assert "bnn-itrd: fabric: " in capsys.readouterr().err


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize(("value", "name"), [(Evil(), "posix.mkdir"), (nn.Linear(1, 1), "torch.nn.*Linear")])
def test_a_refused_pickle_names_what_it_holds(value: object, name: str, tmp_path: Path) -> None:
    torch.save({"format": 1, "x": value}, tmp_path / "a.pt")
    reason = rf"it contains an object of {name}, but only tensors and plain values are read: no code is run$"
    with pytest.raises(UserError, match=rf"a\.pt cannot be read as a checkpoint: {reason}"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(UserError, match=rf"is not the state dict of torchvision:resnet18 .*: {reason}"):
        foreign("torchvision:resnet18", str(tmp_path / "a.pt"), num_classes=2)


def test_a_damaged_checkpoint_in_the_folder_of_a_run(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before anything is trained, and stays as it is."""
    last = tmp_path / "recu" / "last.pt"
    save_checkpoint(last, {"identity": {}, "objective": {}, "epoch": 1})
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(damaged)
    assert cli.main(["run", "digits", *TINY, f"--data.root={tiny_npz}", f"--out={tmp_path}"]) == 2
    assert f"{last} is damaged: its checksum does not fit its contents" in capsys.readouterr().err
    assert last.read_bytes() == damaged and [path.name for path in tmp_path.iterdir()] == ["recu"]
