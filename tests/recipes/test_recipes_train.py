"""Recipes: pairs of networks, networks of other libraries, stepped rates, two stages, teachers of another task."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import TINY
from torch import Tensor, nn

import bnn_itrd.runs.member
from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config import DistillConfig, ITRDConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import MemberConfig, RunConfig, member_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.trees import differences, to_dict
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.normalisation import seen_as_trained
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.deploy.targets import open_file, write_target
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.errors import UserError
from bnn_itrd.models import observe
from bnn_itrd.quant import WEIGHTS, BinaryConv2d, Scheme
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.member import train_member
from bnn_itrd.runs.networks import build
from bnn_itrd.runs.sizes import sizes_of_definition
from bnn_itrd.runs.teachers import load_teacher
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.optimizer import learning_rate
from bnn_itrd.training.progress import Progress
from bnn_itrd.training.trainer import Trainer

CPU = FabricConfig(accelerator="cpu", threads=1)
QUIET = LogConfig(tensorboard=False, progress=False)
# Those of timm have a test of their own.
IMAGES = [
    name
    for name in recipes.names()
    if "task" not in (tree := recipes.read(name)) and not tree["network"]["name"].startswith("timm:")
]

# Miles et al. 2022, table 1: (teacher, student, alpha by sec. 5.1, learning rate by Tian et al. 2020).
TABLE_1 = [
    ("wrn_40_2", "wrn_16_2", 1.01, 0.05),
    ("wrn_40_2", "wrn_40_1", 1.01, 0.05),
    ("resnet56", "resnet20", 1.01, 0.05),
    ("resnet110", "resnet20", 1.01, 0.05),
    ("resnet110", "resnet32", 1.01, 0.05),
    ("resnet32x4", "resnet8x4", 1.01, 0.05),
    ("vgg13", "vgg8", 1.01, 0.05),
    ("vgg13", "mobilenet_v2_half", 1.5, 0.01),
    ("resnet50", "mobilenet_v2_half", 1.5, 0.01),
    ("resnet50", "vgg8", 1.5, 0.05),
    ("resnet32x4", "shufflenet_v1", 1.5, 0.01),
    ("resnet32x4", "shufflenet_v2", 1.5, 0.01),
    ("wrn_40_2", "shufflenet_v1", 1.5, 0.01),
]
# What ITRD's table 1 and the poster's table 3 compare, by the names of their students here.
ROWS = [
    *("plain", "kd", "fitnet", "at", "sp", "cc", "rkd", "pkt", "ft", "nst", "crd", "wcord", "reviewkd"),
    *("corr", "itrd", "srd", "dkd", "srd-dkd"),
]
# RepDistiller's scripts (run_cifar_distill.sh), and its defaults for RKD.
PAPERS_WEIGHTS: dict[str, dict[str, dict[str, float]]] = {
    "fitnet": {"fitnet": {"weight": 100}},
    "at": {"at": {"weight": 1000}},
    "sp": {"sp": {"weight": 3000}},
    "cc": {"cc": {"weight": 0.02}},
    "rkd": {"rkd": {"weight": 1, "distance": 25, "angle": 50}},
    "pkt": {"pkt": {"weight": 30000}},
    "ft": {"ft": {"weight": 200}},
    "nst": {"nst": {"weight": 50}},
    "reviewkd": {"reviewkd": {"warmup_epochs": 20}},
    "srd": {"srd": {"weight": 2}},
    "dkd": {"dkd": {"weight": 1, "alpha": 1, "tau": 4, "warmup_epochs": 20}},
}
# ReviewKD's weight (its script) and DKD's beta (its configurations) where one is published for the pair.
OF_PAIR = {
    ("wrn_40_2", "wrn_16_2"): (5.0, 6.0),
    ("wrn_40_2", "wrn_40_1"): (5.0, 6.0),
    ("resnet56", "resnet20"): (0.6, 2.0),
    ("resnet110", "resnet32"): (1.0, 2.0),
    ("resnet32x4", "resnet8x4"): (5.0, 8.0),
    ("vgg13", "vgg8"): (1.0, 6.0),
    ("vgg13", "mobilenet_v2_half"): (1.0, 6.0),
    ("resnet32x4", "shufflenet_v1"): (5.0, 8.0),
    ("resnet32x4", "shufflenet_v2"): (8.0, 8.0),
    ("wrn_40_2", "shufflenet_v1"): (5.0, 8.0),
}
# RepDistiller's parameters at 100 classes.
PARAMETERS = {"resnet20": 278_324, "resnet32": 472_756, "resnet56": 861_620, "resnet110": 1_736_564}


def config(name: str, *arguments: str) -> RunConfig:
    return run_config("run", "", recipes.read(name), arguments, extra={})[0]


def synthetic(classes: int, shape: tuple[int, int, int], count: int = 4) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    mean, std = torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.25)
    split = TensorSplit(images, torch.arange(count) % classes, mean, std, crop_padding=0, flip=False)
    names = tuple(f"c{i}" for i in range(classes))
    return ImageData("synthetic", names, (0.5,) * shape[0], (0.25,) * shape[0], shape, split, None, split)


def images_like(recipe: str) -> ImageData:
    """Four images with the classes and channels of the recipe's data set, ImageNet's smaller."""
    if recipe.startswith("imagenet"):
        return synthetic(1000, (3, 32, 32))
    if recipe == "digits":
        return synthetic(10, (1, 16, 16))
    return synthetic(100 if recipe.startswith("cifar100") else 10, (3, 32, 32))


# ---- the schedule


def test_the_rate_falls_at_the_milestones() -> None:
    """240 epochs of 3 steps, warm-up of 2 steps."""
    drops = [450, 540, 630]
    options: dict[str, Any] = {"steps": 720, "warmup": 2, "peak": 0.05, "schedule": "step", "decay": 0.1}
    rates = [learning_rate(s, drops=drops, **options) for s in range(720)]
    expected = [0.025, 0.05] + [0.05] * 448 + [0.005] * 90 + [0.0005] * 90 + [0.00005] * 90
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_a_shorter_first_stage_keeps_the_proportions() -> None:
    train = TrainConfig(epochs=240, schedule="step", warmup_epochs=0)
    assert train.of_first_stage(80).milestones == (50, 60, 70) and train.of_first_stage(80).epochs == 80
    assert train.of_first_stage(1).milestones == ()


@pytest.mark.parametrize("milestones", [(30, 20), (20, 20), (0, 20), (20, 60), (-5,)])
def test_milestones_rise_within_the_epochs(milestones: tuple[int, ...]) -> None:
    TrainConfig(epochs=60, milestones=milestones)  # of no use with the cosine
    with pytest.raises(UserError, match=r"train\.milestones must be whole numbers that rise within .*\(0, 60\)"):
        TrainConfig(epochs=60, schedule="step", milestones=milestones)


def test_a_run_of_before_the_fields_were_there_continues() -> None:
    def identity(**train: Any) -> dict[str, Any]:
        return to_dict(member_config(RunConfig(train=TrainConfig(**train)), "recu"))

    old = identity()
    for field in ("schedule", "milestones", "decay"):
        del old["train"][field]
    del old["scheme"]["binary"], old["network"]["teacher"]
    assert differences(old, identity()) == []
    taught = to_dict(member_config(RunConfig(), "recu-itrd"))
    older = to_dict(member_config(RunConfig(), "recu-itrd"))
    for field in ("weight", "warmup_epochs", "final"):
        del older["distill"]["itrd"][field]
    assert differences(older, taught) == []
    assert differences(old, identity(schedule="step", milestones=(5,))) == [
        "train.milestones: [150, 180, 210] there, [5] given",
        "train.schedule: 'cosine' there, 'step' given",
    ]
    # Images of the user's own have a name alone.
    assert differences({"data": {"name": "mine"}}, {"data": {"name": "mine"}}) == []
    # In full precision the whole group is absent: that is no default.
    assert differences({**old, "scheme": None}, identity())


# ---- the table


def test_the_pairs_are_those_of_the_paper() -> None:
    names = {f"cifar100-{teacher}-{student}" for teacher, student, _, _ in TABLE_1}
    assert {name for name in recipes.names() if name.startswith("cifar100-")} == names
    for teacher, student, alpha, rate in TABLE_1:
        made = config(f"cifar100-{teacher}-{student}")
        assert made.network.name == student and made.network.teacher == teacher and not made.scheme.binary
        assert [name for name in made.students if name not in ROWS] == []
        for name, options in PAPERS_WEIGHTS.items():
            (method,) = options
            given = to_dict(made.students[name])
            assert given["ce"] == 1 and {k: given[method][k] for k in options[method]} == options[method]
        itrd, kd, crd = made.students["itrd"].itrd, made.students["kd"], made.students["crd"].crd
        corr, both = made.students["corr"].itrd, made.students["srd-dkd"]
        assert corr is not None and (corr.alpha, corr.beta_corr, corr.beta_mi) == (alpha, 2.0, 0.0)
        assert (both.srd, both.dkd) == (made.students["srd"].srd, made.students["dkd"].dkd)
        of_pair = made.students["reviewkd"].reviewkd.weight, made.students["dkd"].dkd.beta
        assert of_pair == OF_PAIR.get((teacher, student), (1.0, 8.0))
        assert itrd is not None and (itrd.alpha, itrd.beta_corr, itrd.beta_mi) == (alpha, 2.0, 1.0)
        assert kd.kd is not None and (kd.ce, kd.kd.weight, kd.kd.tau) == (0.1, 0.9, 4.0)
        assert crd is not None and (crd.weight, crd.negatives, crd.temperature) == (0.8, 16384, 0.07)
        assert (made.train.lr, made.teacher_train.lr) == (rate, 0.05)
        # RepDistiller's list of the students whose paraphraser is prepared at 0.01.
        assert made.students["ft"].ft.preparation_lr == (0.01 if student.startswith(("resnet", "wrn")) else None)
        for train in (made.train, made.teacher_train):
            assert (train.epochs, train.batch_size, train.weight_decay, train.warmup) == (240, 64, 5e-4, 0)
            assert (train.schedule, train.milestones, train.decay) == ("step", (150, 180, 210), 0.1)
        for name in ("teacher", "itrd"):
            member = member_config(made, name)
            assert member.scheme is None
            if member.network.name in PARAMETERS:
                with torch.device("meta"):
                    model = build(member.network, None, num_classes=100, input_shape=(3, 32, 32))
                assert sum(p.numel() for p in model.parameters()) == PARAMETERS[member.network.name]


def test_a_recipe_that_was_read_is_the_readers_own() -> None:
    tree = recipes.read("cifar100-vgg13-vgg8")
    tree["train"]["lr"] = 99
    assert recipes.read("cifar100-vgg13-vgg8")["train"]["lr"] == 0.05


def test_the_authors_settings_of_binary_networks() -> None:
    """The defaults of their published code: IR-Net's trainers, RBNN's and ReCU's command lines."""
    irnet, rbnn, recu = config("cifar10-irnet"), config("cifar10-rbnn"), config("cifar10-resnet20")
    assert (irnet.scheme.weight, irnet.scheme.t_min, irnet.scheme.t_max) == ("irnet", 1e-3, 10)
    train = irnet.train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay, train.warmup) == (400, 128, 0.1, 1e-4, 0)
    assert (rbnn.scheme.weight, rbnn.scheme.t_min, rbnn.scheme.t_max) == ("rbnn", 1e-2, 10)
    train = rbnn.train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay, train.warmup) == (1000, 256, 0.1, 1e-4, 5)
    adabin = config("cifar10-adabin")
    assert (adabin.scheme.weight, adabin.scheme.nonlinearity, adabin.scheme.t_min) == ("adabin", "maxout", 1e-3)
    train = adabin.train
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay, train.warmup) == (400, 128, 0.1, 1e-4, 0)
    # One command line for ResNet-18, ResNet-20 and VGG-small.
    assert recu.train.weight_decay == config("cifar10-itrd-paper").train.weight_decay == 5e-4


def test_imagenet_is_distilled_as_the_paper_does() -> None:
    for name, binary in (("imagenet-resnet34-resnet18", False), ("imagenet-resnet34-resnet18-binary", True)):
        made = config(name)
        assert (made.train.epochs, made.train.batch_size, made.train.lr) == (100, 256, 0.1)
        assert made.train.milestones == (30, 60, 90) and made.teacher == "torchvision:resnet34"
        member = member_config(made, "itrd")
        with torch.device("meta"):
            model = build(member.network, member.scheme, num_classes=1000, input_shape=(3, 224, 224))
        # torchvision's 20 convolutions but the first and the three of shortcuts.
        assert sum(isinstance(m, BinaryConv2d) for m in model.modules()) == (16 if binary else 0)
        assert model.input_shape == (3, 224, 224)
        if not binary:
            assert sum(p.numel() for p in model.parameters()) == 11_689_512


# ---- every recipe trains


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


# ---- pairs and full-precision students down the whole road


def test_a_pair_down_the_road(tiny_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = [*TINY, f"--data.root={tiny_npz}", "--network.teacher=resnet14", "--network.name=resnet8",
             "--network.width=0.5", "--network.teacher_shortcut=projection", "--log.tensorboard=false",
             "--train.milestones=[1]", "--teacher_train.schedule=cosine", "--train.lr=0.02"]  # fmt: skip
    students = "--students={kd: {ce: 0.1, kd: {}, vid: {form: maps}}}"
    assert main(["run", "cifar100-wrn_40_2-wrn_16_2", *small, students, f"--out={out}"]) == 0
    assert (out / "teacher" / "teacher.onnx").is_file() and (out / "kd" / "student.onnx").is_file()
    teacher, identity, _ = load_member(out / "teacher")
    assert identity["network"]["name"] == "resnet14" and identity["network"]["teacher_shortcut"] == "projection"
    student, identity, _ = load_member(out / "kd")
    assert identity["network"]["name"] == "resnet8" and identity["scheme"] is None
    assert not any(isinstance(m, BinaryConv2d) for m in student.modules())
    assert len(list(teacher.modules())) > len(list(student.modules()))
    assert [row["lr"] for row in read_metrics(out / "kd" / "metrics.csv")] == pytest.approx([0.02, 0.002])
    # The file is named after the member, not after whether it is binary.
    assert main(["export", str(out / "kd"), f"--out={tmp_path / 'files'}", f"--data.root={tiny_npz}"]) == 0
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["student.onnx"]


def test_a_library_network_trains_loads_and_exports(tiny_npz: Path, tmp_path: Path) -> None:
    """torchvision's network through `binarize`: built again from its checkpoint, and the same as a file."""
    source = DataConfig(name="cifar10", root=str(tiny_npz), image_size=32)
    data, network = load_data(source), NetworkConfig(name="torchvision:resnet18")
    train = TrainConfig(epochs=1, batch_size=48, lr=0.01, warmup_epochs=0, eval_every=9)
    member = MemberConfig("s", source, network, SchemeConfig(), train, DistillConfig(), CPU, QUIET)
    fitted = train_member(member, data, None, fabric=make_fabric(CPU), out=tmp_path / "s")
    student, identity, file = load_member(tmp_path / "s")
    assert sum(isinstance(m, BinaryConv2d) for m in student.modules()) == 16 and student.input_shape == (3, 32, 32)
    assert identity["network"]["name"] == "torchvision:resnet18"
    images, _, _ = next(data.test.eval_batches(48, device=torch.device("cpu")))
    with torch.no_grad():
        logits = student(images)
        assert torch.equal(logits, fitted.model(images))
    write_target("onnx", student, data, tmp_path / "s.onnx", member="s", checkpoint=file)
    opened = open_file(tmp_path / "s.onnx")
    assert (tmp_path / "s.onnx").stat().st_size < 4e6  # of 44.7 MB
    away = np.abs(opened.predict(images) - logits.numpy()).max(1)
    assert np.median(away) < 1e-3  # a sign that rounding turns moves a single image


def test_a_library_networks_stages_survive_the_rewriting() -> None:
    network = NetworkConfig(name="torchvision:mobilenet_v2")
    sizes = []
    for scheme in (None, SchemeConfig()):
        with torch.device("meta"):
            model = build(network, scheme, num_classes=5, input_shape=(3, 64, 64))
            outputs = observe(model.eval())(torch.zeros(1, 3, 64, 64))
        sizes.append([tuple(stage.shape) for stage in outputs.stages])
    assert sizes[0] == sizes[1] and len(sizes[0]) == 5


def test_timm_networks_take_any_number_of_channels() -> None:
    pytest.importorskip("timm")
    network = NetworkConfig(name="timm:resnet10t", padding_value=1)
    model = build(network, SchemeConfig(weight="xnor", activation="clipped"), num_classes=4, input_shape=(1, 32, 32))
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    layers = [m for m in model.modules() if isinstance(m, BinaryConv2d)]
    assert layers and all(m.padding_value == 1 for m in layers if any(m.padding))


@pytest.mark.parametrize(("name", "dim"), [("deit_tiny", 192), ("deit_small", 384)])
def test_a_transformer_of_the_poster_takes_two_steps(name: str, dim: int) -> None:
    """Two steps of a vision transformer of timm's tests below a small RegNetY; the recipe's networks fit each other."""
    pytest.importorskip("timm", reason="an optional extra, which .ci/full installs")
    made = config(f"imagenet-regnety_160-{name}")
    train = made.train
    assert (train.epochs, train.optimizer, train.lr, train.weight_decay) == (300, "adamw", 1e-3, 0.05)
    data = synthetic(1000, (3, 224, 224))
    member = member_config(made, "srd")
    student, teacher = (sizes_of_definition(n, None, data) for n in (member.network, NetworkConfig("timm:regnety_160")))
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


# ---- two stages


def test_tau_is_the_published_one_of_the_weight() -> None:
    for weight in WEIGHTS:
        scheme = SchemeConfig(weight=weight).resolved()
        assert (scheme.tau_min, scheme.tau_max) == Scheme(weight).tau()
    read = recipes.read("cifar10-biper")
    config, _ = run_config("run", "", read, [], extra={})
    assert (config.scheme.tau_min, config.scheme.tau_max) == (0.0468, 0.0468)
    first = config.scheme.of_first_stage()
    assert (first.weight, first.tau_min, first.tau_max) == ("biper_sine", 0.037, 0.037)
    # What is given holds, for both stages; a weight given over a recipe has its own.
    config, _ = run_config("run", "", read, ["--scheme.tau_min=0", "--scheme.tau_max=0.5"], extra={})
    assert [config.scheme.of_first_stage().tau_min, config.scheme.of_first_stage().tau_max] == [0.0, 0.5]
    config, _ = run_config("run", "", recipes.read("digits"), ["--scheme.weight=biper"], extra={})
    assert config.scheme.tau_max == 0.0468


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
    teacher = build(NetworkConfig(name="resnet8"), None, num_classes=3, input_shape=(3, 8, 8)).eval()

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


# ---- a teacher of another task


@pytest.fixture(scope="module")
def other_task(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> tuple[Path, Path]:
    """(a teacher of the three classes, images of five others)."""
    folder = tmp_path_factory.mktemp("other")
    arguments = ["train", "digits", *TINY, f"--data.root={tiny_npz}", "--network.name=resnet8", "--member=teacher",
                 f"--out={folder / 'run'}", "--log.tensorboard=false"]  # fmt: skip
    assert main(arguments) == 0
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {"classes": np.array([f"other{i}" for i in range(5)])}
    for split, count in (("train", 60), ("test", 20)):
        arrays[f"x_{split}"] = rng.integers(60, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 5
    np.savez(folder / "five.npz", **arrays)
    return folder / "run", folder / "five.npz"


def test_a_teacher_of_other_classes_teaches_what_needs_no_logits(
    other_task: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, five = other_task
    base = ["run", "digits", *TINY, f"--data.root={five}", f"--teacher={teacher}", "--network.name=resnet8",
            "--network.width=0.5", "--log.tensorboard=false", "--train.batch_size=20"]  # fmt: skip
    students = "--students={s: {vid: {form: logits}, itrd: {}}}"
    assert main([*base, students, f"--out={tmp_path / 'run'}"]) == 0
    rows = read_metrics(tmp_path / "run" / "s" / "metrics.csv")
    assert len(rows) == 2 and all(math.isfinite(row[part]) for row in rows for part in ("loss_vid", "loss_itrd"))
    assert load_member(tmp_path / "run" / "s")[0](torch.zeros(1, 3, 16, 16)).shape == (1, 5)
    # Its answers are no answers to the question of its students: it has no row.
    models = json.loads((tmp_path / "run" / "comparison.json").read_text())["models"]
    assert [(m["name"], m["reference"]) for m in models] == [("s", None)]
    capsys.readouterr()
    for method in ("kd", "dkd", "dist"):
        assert main([*base, f"--students={{s: {{{method}: {{}}}}}}", f"--out={tmp_path / method}"]) == 2
        error = capsys.readouterr().err
        assert re.search(r"was trained for classes .*only students without kd, dkd and dist", error), error
        assert not (tmp_path / method).exists()


def test_a_teacher_of_another_task_sees_images_as_it_was_trained(other_task: tuple[Path, Path]) -> None:
    folder, five = other_task
    data = load_data(DataConfig(name="cifar10", root=str(five), image_size=16))
    member = load_teacher(str(folder), None, data, other_classes=True)
    plain, identity, _ = load_member(folder / "teacher")
    images, _, _ = next(data.test.eval_batches(20, device=torch.device("cpu")))
    pixels = np.stack([data.test.raw(i) for i in range(20)]).astype(np.float64) / 255
    own = (pixels - np.array(identity["mean"])) / np.array(identity["std"])
    with torch.no_grad():
        expected = plain(torch.from_numpy(own.transpose(0, 3, 1, 2)).float())
        with seen_as_trained(member.model, data):
            torch.testing.assert_close(member.model(images), expected, rtol=1e-4, atol=1e-5)
    assert member.other_task and (plain(images) - expected).abs().max() > 1e-3


def test_a_library_teacher_of_other_classes(tmp_path: Path) -> None:
    import torchvision

    model = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=7)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    data, address = synthetic(3, (3, 32, 32)), "torchvision:shufflenet_v2_x0_5"
    member = load_teacher(address, str(tmp_path / "w.pt"), data, other_classes=True)
    assert member.other_task and member.model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(UserError, match=r"is not the state dict of torchvision:shufflenet_v2_x0_5 with 3 classes"):
        load_teacher(address, str(tmp_path / "w.pt"), data)
    with pytest.raises(UserError, match=r"is not the state dict"):
        load_teacher("torchvision:resnet18", str(tmp_path / "w.pt"), data, other_classes=True)
    assert not load_teacher(address, str(tmp_path / "w.pt"), synthetic(7, (3, 32, 32)), other_classes=True).other_task


# ---- bad input, before any training


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("cifar100-resnet56-resnet21", [], r"unknown recipe .*did you mean 'cifar100-resnet56-resnet20'"),
        ("digits", ["--network.teacher=resnet57"], r"teacher: unknown network 'resnet57'.*did you mean 'resnet5"),
        ("digits", ["--network.name=torchvision:resnet19"], r"unknown torchvision network 'resnet19'.*'resnet1"),
        ("digits", ["--network.name=torchvision:resnet18", "--network.width=0.5"],
         r"network\.width is an option of bnn_itrd's networks; torchvision:resnet18 has only padding_value"),
        ("digits", ["--train.schedule=step", "--train.milestones=[20, 10]", "--train.epochs=30"],
         r"train\.milestones must be .* = \(0, 30\) \(--train\.milestones \[15,22\]\), got \[20, 10\]"),
        ("digits", ["--train.schedule=steps"], r"train\.schedule must be one of \['cosine', 'step'\], got steps"),
        ("digits", ["--train.decay=0"], r"train\.decay must be in \(0, 1\] \(--train\.decay 0\.1\), got 0"),
        ("digits", ["--scheme.binary=false", "--network.padding_value=1"],
         r"network\.padding_value is an option of binary students, but scheme\.binary is false"),
        ("digits", ["--scheme.binary=false", "--scheme.first_stage_epochs=2"],
         r"scheme\.first_stage_epochs must be 0 with scheme\.binary false \(--scheme\.first_stage_epochs 0\), got 2"),
        ("digits", ["--scheme.first_stage_epochs=1", "--train.warmup_epochs=1"],
         r"train\.warmup_epochs is 1 but the first stage has 1 epoch: .* \(--train\.warmup_epochs 0\.5\)"),
        ("digits", ["--scheme.first_stage=reall", "--scheme.first_stage_epochs=1"],
         r"unknown weight binariser 'reall'.*did you mean 'real'"),
        # ResNet-18 has four stages, ResNet-20 three.
        ("digits", ["--network.teacher=resnet18", "--students={a: {at: {}}}"],
         r"students\.a: at compares .* the student has 3 of them, the teacher 4"),
        ("digits", ["--network.name=torchvision:vgg11", "--data.image_size=8", "--students={a: {}}"],
         r"teacher: the network cannot be used on images of 3x8x8"),
        ("digits", ["--students={a: {crd: {negatives: 1000}}}"], r"students\.a\.crd\.negatives .*1000"),
        ("digits", ["--network.teacher=shufflenet_v1", "--network.width=0.5"],
         r"teacher: network\.width is not an option of shufflenet_v1"),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_any_training(
    recipe: str, arguments: list[str], message: str, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = {token.partition("=")[0] for token in arguments}
    base = [token for token in TINY if token.partition("=")[0] not in given]
    assert main(["run", recipe, *base, f"--data.root={tiny_npz}", f"--out={out}", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not list(out.rglob("*.pt")) and "Traceback" not in error


def test_a_first_stage_of_another_run_is_refused(tiny_npz: Path, tmp_path: Path) -> None:
    member = _two_stage("recu", "real")
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
    train_member(member, data, None, fabric=make_fabric(CPU), out=tmp_path / "s")
    other = dataclasses.replace(member, train=dataclasses.replace(member.train, lr=0.01))
    (tmp_path / "s" / "last.pt").unlink()
    with pytest.raises(UserError, match=r"first-stage belongs to another configuration.*\n.*train\.lr"):
        train_member(other, data, None, fabric=make_fabric(CPU), out=tmp_path / "s")
