"""One process at a time works in a run's folder; what a killed one left half written is removed by the next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers import TINY
from torch import nn

import bnn_itrd
from bnn_itrd.cli import main
from bnn_itrd.config.train import LogConfig, TrainConfig
from bnn_itrd.errors import UserError
from bnn_itrd.runs.lock import exclusive_folder, run_folder

SMALL = [*TINY, "--network.width=0.25", "--log.tensorboard=false"]


def test_a_second_process_is_refused_and_takes_nothing_away(
    tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with exclusive_folder(out):
        being_written = out / ".comparison.json.abcd_123.tmp"
        being_written.write_text("{")
        for command in (["run"], ["train", "--member=teacher"]):
            assert main([command[0], "digits", *SMALL, *command[1:], f"--data.root={tiny_npz}", f"--out={out}"]) == 2
            message = (
                f"another process (pid {os.getpid()}) is at work in {out}: wait until it ends, or choose another --out"
            )
            assert message in capsys.readouterr().err
        assert list(out.iterdir()) == [being_written]


def test_distill_refuses_the_folder_of_another_process(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    images = torch.utils.data.TensorDataset(torch.rand(24, 3, 8, 8), torch.arange(24) % 3)
    with exclusive_folder(tmp_path / "out"), pytest.raises(UserError, match="another process .* is at work in"):
        bnn_itrd.distill(
            network, None, (images, images), train=TrainConfig(epochs=1, batch_size=8), out=tmp_path / "out",
            log=LogConfig(progress=False, tensorboard=False),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_two_members_are_trained_side_by_side_and_the_whole_run_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with run_folder(out, "teacher"), run_folder(out, "recu"):
        with pytest.raises(UserError, match=f"another process .* is at work in {out}: "), run_folder(out):
            pass
        with (
            pytest.raises(UserError, match=f"another process .* is at work in {out / 'recu'}: "),
            run_folder(out, "recu"),
        ):
            pass
    with run_folder(out):
        (out / "config.yaml").touch()
    assert [path.name for path in out.iterdir()] == ["config.yaml"]


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".comparison.json.k3jb0_xw.tmp").touch()
    (tmp_path / "comparison.json").touch()
    with exclusive_folder(tmp_path, shared=True):  # it may be another one's
        assert (tmp_path / ".comparison.json.k3jb0_xw.tmp").exists()
    with exclusive_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["comparison.json"]


def test_a_user_s_own_hidden_files_stay(tmp_path: Path) -> None:
    """--out may be a folder with other things in it."""
    (tmp_path / ".notes.tmp").touch()
    (tmp_path / ".cache.abcdefgh.tmp").mkdir()
    written = [f".last.pt.{own}.tmp" for own in ("k3jb0_xw", "0123456789abcdef" * 2)] + [".curves.png.4321.tmp"]
    for name in written:
        (tmp_path / name).touch()
    with exclusive_folder(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".cache.abcdefgh.tmp", ".notes.tmp"]


def test_the_process_that_is_refused_leaves_the_other_one_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began at once: neither saw the folder, and one of them made it."""
    out = tmp_path / "out"
    with exclusive_folder(out):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "exists", lambda path: False)
            with pytest.raises(UserError, match="another process .*is at work"), exclusive_folder(out):
                pass
        assert out.is_dir()


def test_the_other_processes_of_one_run_are_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with exclusive_folder(tmp_path):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with exclusive_folder(tmp_path):
            pass
        monkeypatch.setenv("LOCAL_RANK", "0")
        with pytest.raises(UserError), exclusive_folder(tmp_path):
            pass
