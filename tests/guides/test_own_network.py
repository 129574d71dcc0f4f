"""docs/guides/own-network.md, run as a user would; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guide_blocks import Guide
from PIL import Image

import bnn_itrd
from bnn_itrd.errors import UserError
from bnn_itrd.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def trained(folder: Path) -> tuple[Any, Path]:
    """The guide's files in a user's folder, and its first command run there."""
    guide = Guide("own-network")
    guide.write(folder)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "photo.png")
    done = guide.start(folder, guide.commands[0])
    assert done.returncode == 0, done.stderr
    return guide, folder


def test_its_run_is_a_run_like_any_other(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    models = json.loads((folder / "runs/small/comparison.json").read_text())["models"]
    assert [m["network"] for m in models] == ["mynets:small"] * 3
    assert [m["binary"] for m in models] == [False, True, True]
    # 16 * 9 * 32 + 32 * 9 * 32 weights on 64 pixels each.
    assert models[1]["binary_macs"] == (16 * 9 * 32 + 32 * 9 * 32) * 64
    assert all(a["agreement"] == 100 for m in models for a in m["artefacts"] if a["target"] == "onnx")
    assert (folder / "runs/small/report.html").is_file()
    for command in guide.commands[1:]:
        done = guide.run(folder, command)
        assert done.returncode == 0, done.stderr
    done = guide.run(folder, "python load.py")
    assert (done.returncode == 0 and "GraphModule" in done.stdout) or "Sequential" in done.stdout, done.stderr


def test_the_same_command_continues_and_another_network_is_refused(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    before = (folder / "runs/small/recu/metrics.csv").read_bytes()
    again = guide.run(folder, guide.commands[0])
    assert again.returncode == 0 and (folder / "runs/small/recu/metrics.csv").read_bytes() == before
    text = (folder / "mynets.py").read_text()
    (folder / "others.py").write_text(text)
    other = guide.run(folder, guide.commands[0].replace("mynets:small", "others:small"))
    assert other.returncode == 2 and "network.name: 'mynets:small' there, 'others:small' given" in other.stderr


@pytest.mark.parametrize(
    "command",
    [
        "bnn-itrd evaluate runs/small/recu-itrd",
        "bnn-itrd export runs/small/recu-itrd --out deploy",
        "bnn-itrd summary runs/small/recu-itrd",
        "bnn-itrd validate runs/small/recu-itrd/student.onnx",
        "bnn-itrd run digits --teacher runs/small --out runs/other",
    ],
)
def test_a_folder_that_names_code_is_refused_until_it_is_named_again(trained: tuple[Any, Path], command: str) -> None:
    guide, folder = trained
    done = guide.run(folder, command)
    assert done.returncode == 2
    assert "names the code 'mynets:small', which would be run" in done.stderr and "--trust" in done.stderr


def test_a_hostile_folder_runs_nothing(
    trained: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = trained
    state = load_checkpoint(folder / "runs/small/recu/last.pt")
    state.pop("format")
    state["identity"]["network"]["name"] = "hostile:make"
    save_checkpoint(tmp_path / "run" / "last.pt", state)
    (tmp_path / "hostile.py").write_text("open('it-ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="names the code 'hostile:make'"):
        bnn_itrd.load(tmp_path / "run")
    assert not (tmp_path / "it-ran").exists()


def test_the_python_example_ends_in_a_file(trained: tuple[Any, Path]) -> None:
    guide, folder = trained
    done = guide.run(folder, "python train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "student.onnx"
    for made in ("student/comparison.json", "student/report.html", "student/student.onnx"):
        assert (folder / "runs" / made).is_file()
    done = guide.run(folder, "bnn-itrd predict student.onnx photo.png")
    assert done.returncode == 0 and done.stdout.startswith("photo.png: "), done.stderr
    # The teacher's class has no address of its own (a Sequential): its run can still be named.
    done = guide.run(folder, "bnn-itrd summary runs/teacher --model mynets:small")
    assert done.returncode == 0 and "Conv2d" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("make = 3", "must be a class or function that makes a network, got int"),
        ("def make(num_classes): return 3", "must return a network, a torch.nn.Module, got int"),
        ("def make(depth): return depth", "needs the argument 'depth'"),
        (
            "def make(num_classes): raise RuntimeError('no memory')",
            "failed to make a network: RuntimeError: no memory",
        ),
        ("def other(): pass", "module 'wrong_net' has no 'make'"),
        ("import no_such_module", "importing 'wrong_net' failed: ModuleNotFoundError"),
        ("from torch import nn\ndef make(): return nn.Flatten()", "teacher: "),
    ],
)
def test_a_wrong_network_is_refused_in_words(
    code: str, message: str, tmp_path: Path, guide: Callable[[str], Any]
) -> None:
    (tmp_path / "wrong_net.py").write_text(code)
    done = guide("own-network").run(tmp_path, "bnn-itrd run digits --network.name wrong_net:make --out runs/x")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()


def test_a_network_that_takes_binary_decides_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnn_itrd.config.network import NetworkConfig
    from bnn_itrd.config.scheme import SchemeConfig
    from bnn_itrd.quant import BinaryConv2d
    from bnn_itrd.runs.networks import build

    (tmp_path / "deciding.py").write_text(
        "from torch import nn\nfrom bnn_itrd.quant import BinaryConv2d\n"
        "def make(num_classes, input_shape, binary=None, width=1.0):\n"
        "    c = round(8 * width)\n"
        "    layer = nn.Conv2d(c, c, 3) if binary is None else BinaryConv2d(c, c, 3, scheme=binary)\n"
        "    stem = nn.Conv2d(input_shape[0], c, 1)\n"
        "    return nn.Sequential(stem, nn.BatchNorm2d(c), layer, nn.Flatten(), nn.Linear(36 * c, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    config = NetworkConfig(name="deciding:make", width=2.0)
    sizes = {"num_classes": 4, "input_shape": (3, 8, 8)}
    teacher, student = build(config, None, **sizes), build(config, SchemeConfig(weight="xnor"), **sizes)
    assert type(teacher[2]) is torch.nn.Conv2d and teacher[2].out_channels == 16
    assert type(student[2]) is BinaryConv2d and student[2].scheme.weight == "xnor"
    with pytest.raises(
        UserError, match="network.residual_bits is not an option of deciding:make, whose options are: width"
    ):
        build(NetworkConfig(name="deciding:make", residual_bits=4), SchemeConfig(), **sizes)
