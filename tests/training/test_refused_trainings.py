"""Trainings that do not fit what is there, or whose losses are not finite, are refused or stopped in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_npz
from helpers.tiny_training import CPU, QUIET, TinyNet, train_tiny
from torch import nn

import bnn_itrd
from bnn_itrd.config import DistillConfig, KDConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.distillers import METHODS
from bnn_itrd.errors import UserError
from bnn_itrd.runs.run import run_recipe
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.trainer import Trainer


def test_another_configuration_is_refused_field_by_field(tiny_npz: Path, tmp_path: Path) -> None:
    train_tiny(tiny_npz, tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(UserError) as caught:
        train_tiny(tiny_npz, tmp_path, lr=0.06, weight_decay=0.0)
    text = str(caught.value)
    assert "train.lr: 0.05 there, 0.06 given" in text and "train.weight_decay: 0.0005 there, 0.0 given" in text
    assert (tmp_path / "last.pt").read_bytes() == before


def test_another_teacher_is_refused(tiny_npz: Path, tmp_path: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    config = TrainConfig(epochs=1, batch_size=32, warmup_epochs=0)
    bnn_itrd.distill(TinyNet(), TinyNet(6).eval(), data, train=config, out=tmp_path, fabric=CPU, log=QUIET)
    with pytest.raises(UserError, match="teacher_sha256"):
        bnn_itrd.distill(TinyNet(), TinyNet(6).eval(), data, train=config, out=tmp_path, fabric=CPU, log=QUIET)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tiny_npz: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss part 'ce' was not finite at step \d+ \(epoch 1\).*No checkpoint"):
        train_tiny(tiny_npz, tmp_path / "a", lr=1e30, distill=DistillConfig())

    class Poison(TinyNet):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.calls += 1
            return super().forward(x) * (float("nan") if self.calls == 5 else 1.0)

    # three steps an epoch: the fifth is the second of epoch 2
    with pytest.raises(UserError, match=r"'ce' was not finite at step 4 \(epoch 2\).*has epoch 1\."):
        train_tiny(tiny_npz, tmp_path / "b", student=Poison(), epochs=3, distill=DistillConfig())
    state = load_checkpoint(tmp_path / "b" / "last.pt")
    assert state["epoch"] == 1 and all(torch.isfinite(v).all() for v in state["model"].values())


def test_weights_that_are_not_finite_never_replace_the_last_good_checkpoint(tiny_npz: Path, tmp_path: Path) -> None:
    # one step: its loss is finite, the weights it leaves are not
    with pytest.raises(UserError, match=r"weights were not finite at the end of epoch 1.*No checkpoint"):
        train_tiny(tiny_npz, tmp_path, epochs=1, batch_size=96, lr=1e39, distill=DistillConfig())
    assert not (tmp_path / "last.pt").exists()


def test_a_csv_that_was_lost_is_written_again(tiny_npz: Path, tmp_path: Path) -> None:
    train_tiny(tiny_npz, tmp_path)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / ".last.pt.abc12_9z.tmp").write_bytes(b"cut")
    train_tiny(tiny_npz, tmp_path)
    assert len(read_metrics(tmp_path / "metrics.csv")) == 2
    assert not (tmp_path / ".last.pt.abc12_9z.tmp").exists()


def test_another_network_of_the_same_class_is_refused(tiny_npz: Path, tmp_path: Path) -> None:
    train_tiny(tiny_npz, tmp_path)
    with pytest.raises(UserError, match="layers_sha256"):
        train_tiny(tiny_npz, tmp_path, student=TinyNet(9))


def test_other_images_are_refused(tiny_npz: Path, tmp_path: Path) -> None:
    train_tiny(tiny_npz, tmp_path / "run")
    other = write_npz(tmp_path / "other.npz", n=128, seed=1)
    with pytest.raises(UserError, match="train_images: 96 there, 128 given"):
        train_tiny(other, tmp_path / "run")


def test_batches_that_do_not_fit(tiny_npz: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size 128 is larger than the 96 training images"):
        train_tiny(tiny_npz, tmp_path, batch_size=128)


@pytest.mark.parametrize("failure", ["loss", "folder"])
def test_no_hook_stays_on_the_networks_of_a_run_that_failed(tiny_npz: Path, tmp_path: Path, failure: str) -> None:
    student = TinyNet()
    if failure == "folder":
        train_tiny(tiny_npz, tmp_path)
    with pytest.raises(UserError, match="not finite" if failure == "loss" else "another configuration"):
        train_tiny(tiny_npz, tmp_path, student=student, lr=1e30)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in student.modules())


def test_a_student_of_other_classes_or_images_is_refused_before_anything_is_written(
    tiny_npz: Path, tmp_path: Path
) -> None:
    for classes in (2, 4):
        with pytest.raises(
            UserError, match=rf"TinyNet must return a logit .*: for two images the shape \(2, 3\), got \(2, {classes}\)"
        ):
            train_tiny(tiny_npz, tmp_path / "a", student=TinyNet(classes=classes), distill=DistillConfig())
    student = nn.Sequential(nn.Flatten(), nn.Linear(10, 3))
    student.train()
    with pytest.raises(UserError, match=r"Sequential cannot be used on images of 3x8x8: .*mat1 and mat2"):
        train_tiny(tiny_npz, tmp_path / "a", student=student, distill=DistillConfig())
    assert student.training and not (tmp_path / "a").exists()


def test_a_network_cannot_teach_itself(tiny_npz: Path, tmp_path: Path) -> None:
    network = TinyNet()
    data = DataConfig(name="cifar10", root=str(tiny_npz))
    with pytest.raises(UserError, match="student and teacher are the same object: pass a copy"):
        bnn_itrd.distill(network, network, data, out=tmp_path / "a", fabric=CPU, log=QUIET)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "distill",
    [
        DistillConfig(ce=0),
        DistillConfig(ce=0, kd=KDConfig(weight=0)),
        DistillConfig(ce=0, ab=METHODS["ab"](), fsp=METHODS["fsp"](preparation_epochs=1)),
    ],
)
def test_a_student_that_would_learn_nothing_is_refused(tiny_npz: Path, tmp_path: Path, distill: DistillConfig) -> None:
    with pytest.raises(UserError, match="ce is 0 and no distiller has a weight in the training itself"):
        train_tiny(tiny_npz, tmp_path / "a", distill=distill)
    assert not (tmp_path / "a").exists()
    config = RunConfig(data=DataConfig(name="cifar10", root=str(tiny_npz)), students={"mine": distill}, fabric=CPU)
    with pytest.raises(UserError, match=r"students\.mine: ce is 0"):
        run_recipe(config, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.filterwarnings("ignore:You passed")
def test_a_precision_the_device_does_not_have_is_refused() -> None:
    # Lightning would take bfloat16, and the records would say float16
    with pytest.raises(UserError, match="16-mixed is not possible on this device"):
        make_fabric(CPU, precision="16-mixed")


class _World:
    """A Fabric of several processes, as far as the checks before a run look at it."""

    world_size, is_global_zero = 4, True


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        ({"train": {"batch_size": 97}}, 1, r"^train\.batch_size 97 is larger than the 96 training images"),
        ({"teacher_train": {"batch_size": 97}}, 1, r"^teacher_train\.batch_size 97 is larger"),
        ({"train": {"batch_size": 30}}, 4, r"^train\.batch_size 30 must be a multiple of the number of processes, 4"),
        ({"train": {"precision": "bf16-mixed"}}, 4, r"teacher_train\.precision and train\.precision must be the same"),
    ],
)
def test_batches_and_precisions_are_checked_before_the_teacher_is_trained(
    tiny_npz: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, dict[str, Any]],
    processes: int,
    message: str,
) -> None:
    if processes > 1:
        monkeypatch.setattr("bnn_itrd.runs.run.make_fabric", lambda *_, **__: _World())
    trainings = {
        name: TrainConfig(**{"epochs": 1, "batch_size": 32, **changes.get(name, {})})
        for name in ("train", "teacher_train")
    }
    config = RunConfig(
        data=DataConfig(name="cifar10", root=str(tiny_npz)), network=NetworkConfig("resnet8", width=0.25),
        students={"plain": DistillConfig()}, fabric=CPU, log=QUIET, **trainings,
    )  # fmt: skip
    with pytest.raises(UserError, match=message):
        run_recipe(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_in_another_process_stop_this_one_too(
    tiny_npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(
        TinyNet(), None, input_shape=(3, 8, 8), train=TrainConfig(), distill=DistillConfig(), fabric=make_fabric(CPU)
    )
    assert trainer.finite()
    monkeypatch.setattr(type(trainer.fabric), "world_size", 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda seen, op: seen.zero_())
    assert not trainer.finite()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("lr", 0.0),
        ("momentum", 1.0),
        ("label_smoothing", 1.0),
        ("ema", 1.5),
        ("clip_norm", 0.0),
    ],
)
def test_training_values_out_of_range(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"train\.{field} must be .*, got {value}"):
        TrainConfig(**{field: value})


def test_bad_checkpoints(tmp_path: Path, tiny_npz: Path) -> None:
    train_tiny(tiny_npz, tmp_path)
    last = tmp_path / "last.pt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"last\.pt cannot be read as a checkpoint \(is it cut short\?\)"):
        bnn_itrd.load(tmp_path, model=TinyNet())
    with pytest.raises(UserError, match="cut short"):
        train_tiny(tiny_npz, tmp_path)
    assert last.stat().st_size == len(whole) // 2  # not overwritten: it is the user's to look at
    torch.save({"format": 99}, last)
    with pytest.raises(UserError, match="has format 99, newer than this version reads"):
        bnn_itrd.load(tmp_path, model=TinyNet())
    torch.save({"weights": 1}, last)
    with pytest.raises(UserError, match="is not a checkpoint of bnn-itrd"):
        bnn_itrd.load(tmp_path, model=TinyNet())
    with pytest.raises(UserError, match=r"has no checkpoint last\.pt"):
        bnn_itrd.load(tmp_path / "tensorboard" if (tmp_path / "tensorboard").is_dir() else _empty(tmp_path))
    with pytest.raises(UserError, match="no such file or folder"):
        bnn_itrd.load(tmp_path / "nowhere")


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"
