"""--trust and --model: runs whose network is code of the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import TINY, write_npz

import bnn_itrd
from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.experiments.grid import make_points

CODE = """
from torch import nn


def layers(num_classes, channels=3):
    return [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)]


def make(num_classes, input_shape):
    return nn.Sequential(*layers(num_classes, input_shape[0]))


class Net(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(*layers(num_classes))
"""
NAMES_CODE = "names the code 'trust_case_nets:{}', which would be run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a module, images, a run of the recipe with the module's network, runs of `distill`."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "trust_case_nets.py").write_text(CODE)
    write_npz(folder / "tiny.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        own = "--network.name=trust_case_nets:make"
        assert main(["train", "digits", *given(), own, "--member=teacher", "--out=run"]) == 0
        import trust_case_nets

        data = load_data(DataConfig(name="cifar10", root="tiny.npz"))
        train = TrainConfig(epochs=1, batch_size=32, warmup_epochs=0)
        rest = {"train": train, "fabric": FabricConfig(accelerator="cpu", threads=1), "log": LogConfig(False, False)}
        for name, network in (("class", trust_case_nets.Net(3)), ("function", trust_case_nets.make(3, (3, 8, 8)))):
            bnn_itrd.distill(network, None, data, out=f"distilled/{name}", **rest)
    return folder


def given() -> list[str]:
    return [*TINY, "--data.root=tiny.npz", "--log.tensorboard=false"]


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err


OF_A_RUN = [
    ["evaluate", "run/teacher"],
    ["summary", "run"],
    ["probe", "run/teacher", "--data=cifar10", "--data.root=tiny.npz"],
    ["export", "run/teacher", "--out=files"],
    ["validate", "files/teacher.onnx", "--checkpoint=run/teacher"],
]


def test_a_run_that_names_code_is_used_when_it_is_trusted_or_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for words in OF_A_RUN:
        if words[0] != "validate":  # there is no file yet
            assert NAMES_CODE.format("make") in fails(words, capsys)
        assert main([*words, "--trust"]) == 0
        assert main([*words, "--model=trust_case_nets:make"]) == 0
    assert NAMES_CODE.format("make") in fails(OF_A_RUN[-1], capsys)
    assert "no module 'trust_case_net' for" in fails([*OF_A_RUN[0], "--model=trust_case_net:make"], capsys)


def test_a_teacher_that_names_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    small = ["--network.name=resnet8", "--network.width=0.25", "--students={kd: {kd: {}}}", "--teacher=run"]
    words = ["train", "digits", *given(), *small, "--member=kd", "--out=taught"]
    assert NAMES_CODE.format("make") in fails(words, capsys) and not (folder / "taught").exists()
    assert main([*words, "--trust"]) == 0
    # What the recipe itself names need not be named again.
    named = [word for word in words if not word.startswith("--network.width")]
    assert main([*named, "--network.name=trust_case_nets:make", "--out=named"]) == 0
    swept = ["sweep", "digits", *given(), *small, "--grid", "train.seed=0", "--out=swept"]
    assert NAMES_CODE.format("make") in fails(swept, capsys) and not (folder / "swept").exists()
    assert main([*swept, "--trust"]) == 0
    assert json.loads((folder / "swept" / "sweep.json").read_text())["points"][0]["state"] == "done"


def test_a_run_of_distill(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    with_class, of_function = "distilled/class", "distilled/function"
    data = ["--data.root=tiny.npz"]
    for words in (["summary", with_class], ["export", with_class, "--out=exported", *data]):
        assert NAMES_CODE.format("Net") in fails(words, capsys)
        assert main([*words, "--trust"]) == 0
    # A Sequential says nothing of how it was made.
    for words in (["summary", of_function, "--trust"], ["export", of_function, "--out=exported/function", *data]):
        error = fails(words, capsys)
        assert (
            "has a network of your own, Sequential" in error
            and "--model package.module:NAME" in error
            and "model=..." in error
        )
    model = "--model=trust_case_nets:make"
    assert main(["summary", of_function, model]) == 0
    assert main(["export", of_function, "--out=exported/function", model, *data]) == 0
    written = {path.relative_to(folder / "exported").as_posix() for path in (folder / "exported").rglob("*.onnx")}
    assert written == {"student.onnx", "function/student.onnx"}
    file = "exported/student.onnx"
    assert main(["validate", file, f"--checkpoint={with_class}", "--trust", *data]) == 0
    assert f"--model is for a run's folder or checkpoint, but {file} is an exported file" in fails(
        ["evaluate", file, model], capsys
    )
    assert "but digits is a recipe: leave it out" in fails(["summary", "digits", model], capsys)
    assert "torch.nn:Flatten makes another network than the one that was trained" in fails(
        ["summary", of_function, "--model=torch.nn:Flatten"], capsys
    )


def test_addresses_are_no_business_of_the_parser(tmp_path: Path) -> None:
    """Names with a colon come through, from a recipe and from the command line; nothing is imported."""
    tree = {
        "network": {"name": "no.such.nets:make", "teacher": "no.such:Other"},
        "scheme": {"weight": "no.such:W", "activation": "no.such:A", "nonlinearity": "no.such:N"},
        "data": {"name": "no.such.data:make"},
    }
    words = [f"--{group}.{name}={value}" for group, fields in tree.items() for name, value in fields.items()]
    for recipe, argv in ((tree, []), (recipes.read("digits"), words)):
        config, _ = run_config("run", "", recipe, argv, extra={})
        assert (config.network.name, config.network.teacher) == ("no.such.nets:make", "no.such:Other")
        assert (config.scheme.weight, config.scheme.activation) == ("no.such:W", "no.such:A")
        assert (config.scheme.nonlinearity, config.data.name) == ("no.such:N", "no.such.data:make")


def test_a_point_of_ones_own_binariser_has_a_name_that_can_be_a_folder() -> None:
    recipe = {**recipes.read("digits"), "scheme": {"weight": "mine.pkg:W"}}
    (point,) = make_points(recipe, {"plain": {}}, [])
    assert point.name == "mine.pkg_W-plain-s0" and point.named == {"mine.pkg:W"}
