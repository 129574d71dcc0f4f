"""A run of two stages: the second begins with what the first learned, and either continues."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.recipes import CPU, QUIET
from torch import Tensor, nn

import bnn_itrd.runs.member
from bnn_itrd.config import DistillConfig, ITRDConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import MemberConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.errors import UserError
from bnn_itrd.runs.member import Member, train_member
from bnn_itrd.runs.networks import build
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.trainer import Trainer


def _two_stage(weight: str, first: str, *, distill: DistillConfig | None = None) -> MemberConfig:
    scheme = SchemeConfig(weight=weight, first_stage=first, first_stage_epochs=2)
    train = TrainConfig(epochs=2, batch_size=32, lr=0.05, warmup_epochs=0)
    network = NetworkConfig(name="resnet8", width=0.5)
    return MemberConfig("s", DataConfig(), network, scheme, train, distill or DistillConfig(), CPU, QUIET)


@pytest.mark.parametrize(("weight", "first"), [("recu", "real"), ("biper", "biper_sine")])
def test_the_second_stage_begins_with_what_the_first_learned(
    weight: str, first: str, tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, data = _two_stage(weight, first), load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    begun: dict[str, dict[str, Tensor]] = {}
    fit = bnn_itrd.runs.member.fit

    def spy(model: nn.Module, *rest: Any, out: Path, **options: Any) -> Any:
        begun[out.name] = {k: v.clone() for k, v in model.state_dict().items()}
        return fit(model, *rest, out=out, **options)

    monkeypatch.setattr(bnn_itrd.runs.member, "fit", spy)
    train_member(member, data, None, fabric=make_fabric(CPU), out=tmp_path / "s")
    assert list(begun) == ["first-stage", "s"]
    learned = load_checkpoint(tmp_path / "s" / "first-stage" / "last.pt")["model"]
    second = {k: v for k, v in begun["s"].items() if "progress" not in k}
    shared = second.keys() & learned.keys()
    assert len(shared) > 0.7 * len(second) and all(torch.equal(second[k], learned[k]) for k in shared)
    assert {k for k in second if k.endswith("conv1.weight")} <= shared
    changed = [k for k in shared if not torch.equal(learned[k], begun["first-stage"][k])]
    assert len(changed) > 0.8 * len(shared)
    stages = [yaml.safe_load((tmp_path / "s" / p / "config.yaml").read_text())["scheme"] for p in ("first-stage", "")]
    assert [stage["weight"] for stage in stages] == [first, weight]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_continues_in_either_stage(
    stop: int, tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the first stage, between the two, in the second: the same weights as without."""
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    member = _two_stage("recu", "real", distill=DistillConfig(itrd=ITRDConfig()))
    torch.manual_seed(3)
    network = build(NetworkConfig(name="resnet8"), None, num_classes=3, input_shape=(3, 8, 8)).eval()
    teacher = Member("teacher", network, "teacher", "resnet8")

    def finished(out: Path) -> dict[str, Tensor]:
        model = train_member(member, data, teacher, fabric=make_fabric(CPU), out=out).model
        return {k: v.clone() for k, v in model.state_dict().items()}

    whole = finished(tmp_path / "whole")

    class Killed(Exception):
        pass

    epochs = 0
    train_epoch = Trainer.train_epoch

    def dying(self: Trainer, *rest: Any) -> dict[str, Any]:
        nonlocal epochs
        if epochs == stop:
            raise Killed
        epochs += 1
        return train_epoch(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", dying)
        with pytest.raises(Killed):
            finished(tmp_path / "cut")
    again = finished(tmp_path / "cut")
    assert again.keys() == whole.keys() and all(torch.equal(again[k], whole[k]) for k in whole)


def test_a_first_stage_of_another_run_is_refused(tiny_npz: Path, tmp_path: Path) -> None:
    member = _two_stage("recu", "real")
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    train_member(member, data, None, fabric=make_fabric(CPU), out=tmp_path / "s")
    other = dataclasses.replace(member, train=dataclasses.replace(member.train, lr=0.01))
    (tmp_path / "s" / "last.pt").unlink()
    with pytest.raises(UserError, match=r"first-stage belongs to another configuration.*\n.*train\.lr"):
        train_member(other, data, None, fabric=make_fabric(CPU), out=tmp_path / "s")
