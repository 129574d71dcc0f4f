"""When checkpoints are written, what a stop leaves, and trainings that end before a time limit."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import TINY, write_npz
from torch import nn

from bnn_itrd.cli import main
from bnn_itrd.config import DistillConfig, TrainConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig, LogConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.errors import Unfinished, UserError
from bnn_itrd.training import writer
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import TimeLimit, fit
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.writer import CheckpointWriter

CPU = FabricConfig(accelerator="cpu", threads=1)


class Net(nn.Sequential):
    stages = ("0",)

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def train(data: Path, out: Path, *, epochs: int = 5, **options: Any) -> Any:
    after_epoch = options.pop("after_epoch", None)
    torch.manual_seed(0)
    return fit(
        Net(),
        None,
        load_data(DataConfig(name="cifar10", root=str(data))),
        train=TrainConfig(epochs=epochs, batch_size=32, warmup_epochs=0, **options),
        distill=DistillConfig(),
        fabric=make_fabric(CPU),
        log=LogConfig(tensorboard=False, progress=False),
        out=out,
        identity={},
        title="net",
        after_epoch=after_epoch,
    )


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(file, epochs it holds) of every checkpoint, in order."""
    seen: list[tuple[str, int]] = []
    save = writer.save_checkpoint

    def recorded(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        seen.append((path.name, state["epoch"]))

    monkeypatch.setattr(writer, "save_checkpoint", recorded)
    return seen


def test_the_first_epoch_and_the_end(tiny_npz: Path, tmp_path: Path, written: list[tuple[str, int]]) -> None:
    fitted = train(tiny_npz, tmp_path, checkpoint_seconds=1e9)
    best = fitted.best["epoch"]
    assert [epoch for name, epoch in written if name == "last.pt"] == [1, 5]
    assert [epoch for name, epoch in written if name == "best.pt"] == ([1] if best == 1 else [1, best])
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["history"] == fitted.history
    assert all(torch.equal(v, state["model"][k]) for k, v in fitted.model.state_dict().items())


def test_every_epoch_where_no_time_is_to_pass(tiny_npz: Path, tmp_path: Path, written: list[tuple[str, int]]) -> None:
    train(tiny_npz, tmp_path, checkpoint_seconds=0)
    assert [epoch for name, epoch in written if name == "last.pt"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "options", [{}, {"trivial_augment": True, "cutout": 4, "mixup": 0.2, "cutmix": 1.0, "weight_decay_of": "weights"}]
)
def test_what_ends_a_training_leaves_its_last_epoch(options: dict[str, Any], tiny_npz: Path, tmp_path: Path) -> None:
    whole = train(tiny_npz, tmp_path / "whole", **options)

    def stop(epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_npz, tmp_path / "parts", checkpoint_seconds=1e9, after_epoch=stop, **options)
    assert load_checkpoint(tmp_path / "parts/last.pt")["epoch"] == 3
    # The time between checkpoints is no setting that a run is held against.
    parts = train(tiny_npz, tmp_path / "parts", checkpoint_seconds=7, **options)
    assert all(torch.equal(v, parts.model.state_dict()[k]) for k, v in whole.model.state_dict().items())
    assert len(read_metrics(tmp_path / "parts/metrics.csv")) == 5


def test_a_killed_process_loses_what_was_not_written(tiny_npz: Path, tmp_path: Path) -> None:
    """Its metrics.csv is ahead of its checkpoint then; the training goes on from the checkpoint, to the same end."""
    whole = train(tiny_npz, tmp_path / "whole")
    killed = tmp_path / "killed"
    kept: dict[int, bytes] = {}

    def look(epoch: int) -> None:
        if (killed / "last.pt").exists():
            kept[epoch] = (killed / "last.pt").read_bytes()

    train(tiny_npz, killed, checkpoint_seconds=1e9, after_epoch=look)
    (killed / "last.pt").write_bytes(kept[4])  # as on the disk while the fifth epoch ran: the first one's
    assert load_checkpoint(killed / "last.pt")["epoch"] == 1
    again = train(tiny_npz, killed)
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in whole.model.state_dict().items())
    assert [row["epoch"] for row in read_metrics(killed / "metrics.csv")] == [1, 2, 3, 4, 5]


def test_a_checkpoint_that_cannot_be_written_ends_the_training(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, state: dict[str, Any]) -> None:
        raise UserError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(writer, "save_checkpoint", full)
    for seconds in (0, 1e9):
        with pytest.raises(UserError, match="No space left on device"):
            train(tiny_npz, tmp_path / str(seconds), checkpoint_seconds=seconds)


def test_what_could_not_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for a while: at the end the newest states are there, best.pt among them."""
    save, full = writer.save_checkpoint, [True]

    def sometimes(path: Path, state: dict[str, Any]) -> None:
        if full[0]:
            raise UserError("No space left on device")
        save(path, state)

    monkeypatch.setattr(writer, "save_checkpoint", sometimes)
    kept = CheckpointWriter(tmp_path, 1e9)
    kept.keep({"best.pt": {"epoch": 1}, "last.pt": {"epoch": 1}})
    assert kept._writing is not None and isinstance(kept._writing.exception(), UserError)
    with pytest.raises(UserError, match="No space left"):  # as soon as the training comes by
        kept.keep({"last.pt": {"epoch": 2}})
    full[0] = False
    kept.close()
    assert [load_checkpoint(tmp_path / name)["epoch"] for name in ("best.pt", "last.pt")] == [1, 2]


def test_a_stop_in_the_midst_of_a_copy_keeps_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = CheckpointWriter(tmp_path, 1e9)
    for epoch in (1, 2):
        kept.keep({"last.pt": {"epoch": epoch}})
    copied = writer._copy

    def stopped(*given: Any) -> Any:
        monkeypatch.setattr(writer, "_copy", copied)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_copy", stopped)
    with pytest.raises(KeyboardInterrupt):
        kept.keep({"last.pt": {"epoch": 3}})
    kept.close()
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 2


def test_weights_that_are_one_memory_are_written_once(tmp_path: Path) -> None:
    net = nn.Linear(1000, 1000)
    with contextlib.closing(CheckpointWriter(tmp_path, 1e9)) as kept:
        kept.keep({"last.pt": {"model": net.state_dict(), "objective": nn.ModuleDict({"student": net}).state_dict()}})
        with torch.no_grad():
            net.weight.zero_()  # what was kept does not follow
    state = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(state["model"]["weight"], state["objective"]["student.weight"])
    assert state["model"]["weight"].abs().sum() > 0
    assert (tmp_path / "last.pt").stat().st_size < 4.1e6


def test_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 60, 10, 20 and 5 s, a deadline at 120: what may take 20 s begins before 100. The first one compiles."""
    clock = iter([0.0, 60.0, 70.0, 90.0, 95.0, 99.5, 100.0])
    monkeypatch.setattr("bnn_itrd.training.fit.time", SimpleNamespace(monotonic=lambda: next(clock)))
    limit = TimeLimit(120.0, "net", make_fabric(CPU))
    limit.check(0, 9)
    with pytest.raises(Unfinished):
        limit.check(1, 9)  # 60 s is all that is known yet
    for epoch in range(2, 6):
        limit.check(epoch, 9)
    with pytest.raises(Unfinished, match="^net: stopped after epoch 6 of 9, since the next would pass"):
        limit.check(6, 9)


def test_a_command_with_a_limit_and_without_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_npz(tmp_path / "tiny.npz")
    small = ["--log.tensorboard=false", "--network.name=resnet8", "--network.width=0.25", "--students={s: {}}"]
    words = ["run", "digits", *TINY, *small, f"--data.root={data}", f"--out={tmp_path / 'run'}"]
    assert main([*words, "--train.max_seconds=1e-3"]) == 0
    assert capsys.readouterr().out.endswith(
        "bnn-itrd: teacher: stopped after epoch 0 of 1, since the next would pass train.max_seconds; the same command "
        "continues\n"
    )
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status == {"finished": False, "member": "teacher", "epoch": 0, "epochs": 1}
    assert main([*words, "--report=false"]) == 0
    assert json.loads((tmp_path / "run/status.json").read_text()) == {"finished": True}
    made = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "last.pt" in made and not made & {"comparison.json", "student.onnx", "report.html"}
    assert main([*words, "--report=yes"]) == 2 and "--report must be true or false" in capsys.readouterr().err
    assert main(words) == 0
    assert (tmp_path / "run/comparison.json").is_file() and (tmp_path / "run/s/student.onnx").is_file()


def _history(state: dict[str, Any]) -> None:
    state["history"][1] = [1, 2, 3]


def _row(state: dict[str, Any]) -> None:
    state["history"][0]["loss"] = [0.1]


def _kept(state: dict[str, Any]) -> None:
    state["optimizer"]["state"][0] = True


def _momentum(state: dict[str, Any]) -> None:
    state["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_history, "last.pt: the checkpoint's history is not a list of epochs"),
        (_row, "last.pt: the checkpoint's history is not a list of epochs"),
        (
            _kept,
            r"last.pt: the checkpoint does not fit this network and optimiser \(undo .*\): the optimiser's state of",
        ),
        (_momentum, r"the optimiser's momentum_buffer has the shape \(3,\) for a parameter of shape \(4, 3, 3, 3\)"),
    ],
)
def test_a_checkpoint_with_changed_values(change: Any, message: str, tiny_npz: Path, tmp_path: Path) -> None:
    train(tiny_npz, tmp_path, epochs=2)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["epoch"] = 1
    change(state)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(UserError, match=message):
        train(tiny_npz, tmp_path, epochs=2)
