"""Every recipe trains: each student of it takes two steps on random images."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
import pytest
import torch
from helpers.recipes import CPU, QUIET, ROWS, TABLE_1, config, synthetic
from torch import nn

from bnn_itrd import recipes
from bnn_itrd.config import DistillConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import MemberConfig, member_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.runs.networks import build
from bnn_itrd.runs.sizes import sizes_of_definition
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.progress import Progress
from bnn_itrd.training.trainer import Trainer

# Those of timm have a test of their own.
IMAGES = [
    name
    for name in recipes.names()
    if "task" not in (tree := recipes.read(name)) and not tree["network"]["name"].startswith("timm:")
]


def images_like(recipe: str) -> ImageData:
    """Four images with the classes and channels of the recipe's data set, ImageNet's smaller."""
    if recipe.startswith("imagenet"):
        return synthetic(1000, (3, 32, 32))
    if recipe == "digits":
        return synthetic(10, (1, 16, 16))
    return synthetic(100 if recipe.startswith("cifar100") else 10, (3, 32, 32))


def shortened(train: TrainConfig) -> TrainConfig:
    return dataclasses.replace(
        train, epochs=1, batch_size=2, warmup_epochs=0, milestones=(), precision="32-true", compile=False,
        channels_last=False, lr=1e-3,
    )  # fmt: skip


def two_steps(member: MemberConfig, model: nn.Module, teacher: nn.Module | None, data: ImageData) -> None:
    fabric = make_fabric(CPU)
    distill = member.distill
    for name in ("crd", "wcord"):
        if (options := getattr(distill, name)) is not None:
            distill = dataclasses.replace(distill, **{name: dataclasses.replace(options, negatives=3)})
    trainer = Trainer(
        model, teacher, input_shape=data.input_shape, train=shortened(member.train), distill=distill, fabric=fabric,
        labels=data.train.labels,
    )  # fmt: skip
    before = [p.detach().clone() for p in model.parameters()]
    with Progress("", epochs=1, steps=2, names=trainer.objective.names, batch_size=2, enabled=False, live=False) as bar:
        row = trainer.train_epoch(data, bar)
    trainer.objective.release()
    assert math.isfinite(row["loss"]) and set(trainer.objective.names) >= {"ce", *distill.methods}
    moved = [not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True)]
    assert np.mean(moved) > 0.5 and trainer.finite()


@lru_cache(maxsize=2)
def untrained(
    network: NetworkConfig, scheme: SchemeConfig | None, classes: int, shape: tuple[int, int, int]
) -> nn.Module:
    """The students of a recipe begin alike."""
    torch.manual_seed(0)
    return build(network, scheme, num_classes=classes, input_shape=shape)


# Of VID's transfer, whose networks are large: each student somewhere.
OF_TRANSFER = {
    "mit67-resnet34-resnet18": ["vid-both"],
    "mit67-resnet34-vgg9": ["plain", "lwf-fitnet", "at"],
    "cub200-resnet34-resnet18": ["vid-logits"],
    "cub200-resnet34-vgg9": ["vid-maps"],
}


@cache
def trained_teacher(network: NetworkConfig, classes: int, shape: tuple[int, int, int]) -> nn.Module:
    """The pairs share their teachers: each takes its two steps once."""
    torch.manual_seed(0)
    data = synthetic(classes, shape)
    model = build(network, None, num_classes=classes, input_shape=shape)
    member = MemberConfig("teacher", DataConfig(), network, None, TrainConfig(), DistillConfig(), CPU, QUIET)
    two_steps(member, model, None, data)
    return model.eval()


def _on_trial(name: str, students: Sequence[str]) -> list[str]:
    """The students of a recipe that take two steps: of a pair four, so that the pairs together have each row."""
    pair = next((i for i, (t, s, _, _) in enumerate(TABLE_1) if name == f"cifar100-{t}-{s}"), None)
    if name in OF_TRANSFER:
        return OF_TRANSFER[name]
    if name == "small-itrd-1":
        return ["plain", "itrd"]  # of a pair whose others are on trial
    if pair is None:
        return list(students)
    others = [row for row in ROWS if row not in ("plain", "itrd")]
    return ["plain", "itrd", *(others[(2 * pair + i) % len(others)] for i in range(2))]


def test_each_row_of_the_table_is_on_trial_with_some_pair() -> None:
    assert {row for t, s, _, _ in TABLE_1 for row in _on_trial(f"cifar100-{t}-{s}", ROWS)} == {*ROWS}


@pytest.mark.parametrize("name", ["cifar100-resnet56-resnet20", "cifar100-resnet50-mobilenet_v2_half"])
def test_every_student_of_a_pair_fits_its_networks(name: str) -> None:
    """One pair of a family and the one whose maps differ most; what fails here is told before a training."""
    made, data = config(name), synthetic(100, (3, 32, 32))
    members = [member_config(made, student) for student in ("teacher", "plain")]
    teacher, student = (sizes_of_definition(member.network, None, data) for member in members)
    setting = Setting(student, teacher, torch.arange(50_000) % 100)
    for row, distill in made.students.items():
        with torch.device("meta"):
            distillers = make_distillers(distill, setting)
        assert set(distillers) == set(distill.methods), row


@pytest.mark.parametrize("name", IMAGES)
def test_every_recipe_takes_two_steps(name: str) -> None:
    # A whole ResNet-18 takes seconds a step on one core.
    narrow = ["--network.width=0.25"] if recipes.read(name)["network"]["name"] == "resnet18" else []
    made, data = config(name, *narrow), images_like(name)
    classes, shape = len(data.classes), data.input_shape
    network = made.network.of_teacher() if made.teacher is None else NetworkConfig(name=made.teacher)
    if name in OF_TRANSFER:
        network = NetworkConfig(name="torchvision:resnet18")  # the logits of a ResNet-34 of two steps overflow
    teacher = trained_teacher(network, classes, shape)
    for student in _on_trial(name, list(made.students)):
        member = member_config(made, student)
        first = member.of_first_stage()
        for stage in (member,) if first is None else (first, member):
            model = copy.deepcopy(untrained(stage.network, stage.scheme, classes, shape))
            two_steps(stage, model, teacher if stage.distill.needs_teacher else None, data)


@pytest.mark.parametrize(("name", "dim"), [("deit_tiny", 192), ("deit_small", 384)])
def test_a_transformer_of_the_poster_takes_two_steps(name: str, dim: int) -> None:
    """Two steps of a vision transformer of timm's tests below a small RegNetY; the recipe's networks fit each other."""
    pytest.importorskip("timm", reason="an optional extra, which .ci/full installs")
    made = config(f"imagenet-regnety_160-{name}")
    train = made.train
    assert (train.epochs, train.optimizer, train.lr, train.weight_decay) == (300, "adamw", 1e-3, 0.05)
    assert made.teacher == "timm:regnety_160.deit_in1k"  # the poster's 82.6 %
    data = synthetic(1000, (3, 224, 224))
    member = member_config(made, "srd")
    student, teacher = (sizes_of_definition(n, None, data) for n in (member.network, NetworkConfig(made.teacher)))
    assert (student.representation, teacher.representation) == (dim, 3024)
    with torch.device("meta"):
        made_srd = make_distillers(member.distill, Setting(student, teacher, data.train.labels))
    assert tuple(made_srd["srd"].loss.projector.weight.shape) == (3024, dim)
    data = synthetic(10, (3, 160, 160))
    torch.manual_seed(0)
    small, tall = (untrained(NetworkConfig(f"timm:{n}"), None, 10, (3, 160, 160)) for n in ("test_vit", "regnety_002"))
    for student_name in ("plain", "srd"):
        member = member_config(made, student_name)
        two_steps(member, copy.deepcopy(small), tall.eval() if member.distill.needs_teacher else None, data)
