"""Networks of torchvision and timm as students and teachers, trained, loaded and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from helpers.recipes import CPU, QUIET

from bnn_itrd.cli import main
from bnn_itrd.config import DistillConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import MemberConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.deploy.targets import open_file, write_target
from bnn_itrd.errors import UserError
from bnn_itrd.models import observe
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.member import train_member
from bnn_itrd.runs.networks import build, untrained_network
from bnn_itrd.runs.teachers import library_statistics
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.metrics import read_metrics


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


def test_a_tag_says_which_weights_of_timm_are_meant() -> None:
    """They bring their own normalisation: that of MobileNetV3's second weights is not ImageNet's."""
    pytest.importorskip("timm")
    first, second = (
        library_statistics(untrained_network(f"timm:mobilenetv3_large_100{tag}", num_classes=3))
        for tag in (".ra_in1k", ".miil_in21k")
    )
    assert first == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) and second == ((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UserError, match=r"unknown timm network 'mobilenetv3_large_100\.no_such'"):
        untrained_network("timm:mobilenetv3_large_100.no_such", num_classes=3)
