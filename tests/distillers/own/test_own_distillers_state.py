"""What a user's own distiller owns is trained, kept and resumed, also in a phase of its own and in both stages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.own_distillers import CPU, QUIET, SETTING, distilled
from torch import Tensor, nn

from bnn_itrd.config import DistillConfig, KDConfig, OwnConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import Distiller, Setting, Sizes, make_distillers
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.grid import make_points, parse_axis, student_trees
from bnn_itrd.models import Outputs
from bnn_itrd.runs.run import run_recipe
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.trainer import Trainer


class Hint(Distiller):
    """Owns a layer, BatchNorm and a count of its calls; draws numbers when it is made and when it is called."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.embed = nn.Linear(setting.student.representation, setting.teacher.representation)
        self.norm = nn.BatchNorm1d(setting.teacher.representation)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        self.calls += 1
        kept = torch.rand(student.representation.shape[1]) < 0.8
        return (self.norm(self.embed(student.representation * kept)) - teacher.representation).square().mean()


def test_what_it_owns_is_trained_kept_and_resumed_exactly(
    data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(mix_seed(0, 1))  # where the trainer starts the distillers' parameters: the trial draws nothing
    start = Hint(Setting(Sizes(3, 5, ()), Sizes(3, 7, ()), torch.zeros(0))).state_dict()
    changes = {"epochs": 4, "batch_size": 8, "lr": 0.1, "ema": 0.9}
    whole = distilled(data, tmp_path / "whole", {"mine": Hint}, **changes)
    real = Trainer.train_epoch

    def stopping(self: Trainer, *args: Any) -> Any:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_epoch", stopping)
        distilled(data, tmp_path / "parts", {"mine": Hint}, **changes)
    torch.manual_seed(123)  # what a new process starts from must not matter
    parts = distilled(data, tmp_path / "parts", {"mine": Hint}, **changes)
    a, b = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    keys = {f"distillers.mine.inner.{key}" for key in start}
    assert keys <= a["objective"].keys() == b["objective"].keys()
    assert all(torch.equal(a["objective"][key], b["objective"][key]) for key in a["objective"])
    assert a["objective"]["distillers.mine.inner.calls"] == 4 * 3  # none of the trial's
    for key in ("embed.weight", "norm.running_mean"):
        assert not torch.equal(a["objective"][f"distillers.mine.inner.{key}"], start[key])
    assert [r["loss_mine"] for r in whole.history] == [r["loss_mine"] for r in parts.history]
    assert len(a["optimizer"]["state"]) == len(b["optimizer"]["state"]) == 4 + 4
    with pytest.raises(UserError, match=r"distill\.mine\.weight: 1\.0 there, 2\.0 given"):
        distilled(data, tmp_path / "parts", {"mine": OwnConfig(Hint, weight=2.0)}, **changes)


def test_the_trial_changes_nothing() -> None:
    torch.manual_seed(5)
    made = Hint(SETTING)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    random = torch.get_rng_state()
    make_distillers(DistillConfig(own={"mine": made}), SETTING)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())


class Phased(Distiller):
    """A phase of two epochs in which its own layer is trained, and frozen behind it."""

    preparation_epochs = 2

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.embed = nn.Linear(setting.teacher.representation, setting.student.representation)

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        assert student is None
        return (self.embed(teacher.representation) - 1).square().mean()

    def prepared(self) -> None:
        self.embed.requires_grad_(False)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return (student.representation - self.embed(teacher.representation)).square().mean()


def test_a_phase_of_its_own(data: ImageData, tmp_path: Path) -> None:
    fitted = distilled(data, tmp_path, {"mine": Phased}, lr=0.1)
    rows = read_metrics(tmp_path / "preparation.csv")
    assert len(rows) == 2 and rows[1]["loss_mine"] < rows[0]["loss_mine"]
    assert len(fitted.history) == 2 and fitted.history[0]["loss_mine"] > 0


def test_both_stages_of_a_training(npz: Path, tmp_path: Path) -> None:
    train = TrainConfig(epochs=1, batch_size=8, warmup_epochs=0.0)
    config = RunConfig(
        data=DataConfig(name="cifar10", root=str(npz)),
        network=NetworkConfig("resnet8", width=0.25),
        scheme=SchemeConfig(weight="recu", first_stage="real", first_stage_epochs=1),
        teacher_train=train, train=train, fabric=CPU, log=QUIET,
        students={"mine": DistillConfig(own={f"{__name__}:HintOfRun": {"weight": 0.5}})},
    )  # fmt: skip
    run_recipe(config, tmp_path / "run", only="teacher")
    run_recipe(config, tmp_path / "run", only="mine")
    for folder in ("run/mine/first-stage", "run/mine"):
        state = load_checkpoint(tmp_path / folder / "last.pt")
        assert state["history"][0]["loss_HintOfRun"] > 0
        assert "distillers.HintOfRun.inner.embed.weight" in state["objective"]
        assert state["identity"]["distill"][f"{__name__}:HintOfRun"]["weight"] == 0.5


class HintOfRun(Hint):
    """Refuses to be made anywhere but on the CPU."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        assert self.embed.weight.device.type == "cpu" and torch.zeros(1).device.type == "cpu"


def test_points_of_a_grid() -> None:
    recipe = {"students": {}}
    trees = student_trees(["kd", "mypkg.losses:Mine"], recipe)
    assert trees == {"plain": {}, "kd": {"kd": {}}, "Mine": {"mypkg.losses:Mine": {}}}
    axis = parse_axis("students.Mine.mypkg.losses:Mine.weight=0.5,2")
    made = make_points(recipe, trees, [axis])
    assert [p.name for p in made] == ["recu-plain-s0", "recu-kd-s0", "recu-Mine-weight0.5-s0", "recu-Mine-weight2-s0"]
    assert dict(made[-1].member.distill.own)["mypkg.losses:Mine"].weight == 2.0
    with pytest.raises(UserError, match="--methods names Mine more than once"):
        student_trees(["a:Mine", "b:Mine"], recipe)


def test_a_module_is_imported_on_the_cpu_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are checked on the meta device, where a module's own tensors would stay empty for good."""
    (tmp_path / "kernel_of_mine.py").write_text(
        "import torch\nKERNEL = torch.ones(3)\n\n\n"
        "def loss(student, teacher, labels):\n    return (student.logits * KERNEL).sum()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with torch.device("meta"):
        made = make_distillers(DistillConfig(kd=KDConfig(), own={"kernel_of_mine:loss": {}}), SETTING)
    assert list(made) == ["kd", "loss"] and sys.modules["kernel_of_mine"].KERNEL.device.type == "cpu"
