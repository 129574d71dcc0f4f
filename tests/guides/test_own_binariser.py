"""docs/guides/own-binariser.md, run as a user would; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from guide_blocks import Guide

import bnn_itrd
from bnn_itrd.cli import main
from bnn_itrd.errors import UserError
from bnn_itrd.training.checkpoint import load_checkpoint, save_checkpoint

# Seconds instead of a minute; and the recipe's warm-up is longer than the guide's training.
SHORT = ("--data.per_class=40", "--train.warmup_epochs=1", "--teacher_train.warmup_epochs=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Guide, Path]:
    """The guide's files in a user's folder, and its first command run there."""
    guide, folder = Guide("own-binariser"), tmp_path_factory.mktemp("user")
    guide.write(folder)
    done = guide.run(folder, guide.commands[0], *SHORT)
    assert done.returncode == 0, done.stderr
    return guide, folder


def test_its_run_is_a_run_like_any_other(trained: tuple[Guide, Path]) -> None:
    _, folder = trained
    teacher, mine = json.loads((folder / "runs/mine/comparison.json").read_text())["models"]
    assert (teacher["binary"], mine["binary"], mine["name"]) == (False, True, "mine")
    assert [a["agreement"] for a in mine["artefacts"] if a["target"] == "onnx"] == [100]
    scheme = yaml.safe_load((folder / "runs/mine/mine/config.yaml").read_text())["scheme"]
    assert (scheme["weight"], scheme["activation"]) == ("mybinarisers:MedianWeight", "mybinarisers:Threshold")
    assert scheme["tau_min"] is None and scheme["omega"] == 20.0
    state = load_checkpoint(folder / "runs/mine/mine/last.pt")["model"]
    learned = [v for name, v in state.items() if name.endswith("activation_binarizer.threshold")]
    assert len(learned) == 6 and all(v.abs().max() > 0 for v in learned), "thresholds are trained and saved"


def test_the_same_command_continues_and_another_binariser_is_refused(
    trained: tuple[Guide, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide, folder = trained
    before = (folder / "runs/mine/mine/metrics.csv").read_bytes()
    assert guide.run(folder, guide.commands[0], *SHORT).returncode == 0
    assert (folder / "runs/mine/mine/metrics.csv").read_bytes() == before
    monkeypatch.chdir(folder)
    assert main([*guide.commands[0].replace("mybinarisers:MedianWeight", "xnor").split()[1:], *SHORT]) == 2
    assert "scheme.weight: 'mybinarisers:MedianWeight' there, 'xnor' given" in capsys.readouterr().err


def test_a_folder_that_names_a_binariser_is_refused_until_it_is_trusted(
    trained: tuple[Guide, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = trained
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(UserError, match="names the code 'mybinarisers:MedianWeight', which would be run"):
        bnn_itrd.load("runs/mine/mine")
    with pytest.raises(UserError, match="names the code 'mybinarisers:Threshold'"):
        bnn_itrd.load("runs/mine/mine", trust=["mybinarisers:MedianWeight"])
    model = bnn_itrd.load("runs/mine/mine", trust=True)
    assert sum(type(m).__name__ == "MedianWeight" for m in model.modules()) == 6
    assert {m.sharp for m in model.modules() if type(m).__name__ == "Threshold"} == {20.0}, (
        "the scheme's, which is recorded"
    )


def test_a_hostile_folder_runs_nothing(
    trained: tuple[Guide, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = trained
    (tmp_path / "hostile.py").write_text("open('it-ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    for field in ("weight", "activation", "nonlinearity", "first_stage"):
        state = load_checkpoint(folder / "runs/mine/mine/last.pt")
        state.pop("format")
        scheme = state["identity"]["scheme"]
        scheme |= {"weight": "recu", "activation": "recu", field: "hostile:make"}
        save_checkpoint(tmp_path / field / "last.pt", state)
        with pytest.raises(UserError, match="names the code 'hostile:make'"):
            bnn_itrd.load(tmp_path / field)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("number", [1, 2])
def test_the_other_commands_of_the_guide(number: int, trained: tuple[Guide, Path]) -> None:
    guide, folder = trained
    done = guide.run(folder, guide.commands[number])
    assert done.returncode == 0, done.stderr
    if number == 2:
        made = sorted(path.name for path in (folder / "deploy").iterdir())
        assert made == ["student.onnx", "student.qonnx.onnx", "student.tflite"]


def test_the_python_example_ends_in_a_file(trained: tuple[Guide, Path]) -> None:
    guide, folder = trained
    done = guide.run(folder, "python train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2.0" and done.stdout.splitlines()[-1] == "student.onnx"
    assert (folder / "student.onnx").is_file()


def test_the_recipe_names_it_too(
    trained: tuple[Guide, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = trained
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    epochs = ["--train.epochs=1", "--teacher_train.epochs=1", "--data.per_class=20", "--log.tensorboard=false"]
    assert main(["run", "mine.yaml", "--out=runs/recipe", *epochs]) == 0, capsys.readouterr().err
    model = bnn_itrd.load("runs/recipe/mine", trust=["mybinarisers:MedianWeight"])
    weights = [m for m in model.modules() if type(m).__name__ == "MedianWeight"]
    signs, scale, _ = weights[0](torch.tensor([[-1.0, 2.0, 5.0], [0.0, 0.0, 0.0]]))
    assert signs.tolist() == [[-1, 1, 1], [1, 1, 1]]
    np.testing.assert_allclose(scale.detach().numpy(), [2, 0])


HEAD = "from bnn_itrd.quant import WeightBinarizer, ActivationBinarizer, BinaryWeight, sign\nfrom torch import nn\n"


@pytest.mark.parametrize(
    ("code", "field", "message"),
    [
        ("make = 3", "weight", "weight must be one of recu, xnor"),
        ("class make(nn.Module): pass", "weight", "or a subclass of WeightBinarizer, or a function"),
        ("class make(WeightBinarizer): pass", "activation", "or a subclass of ActivationBinarizer, or a function"),
        (
            "def make(): return 3",
            "nonlinearity",
            "returned an object of builtins:int: it must return an instance of",
        ),
        (
            "class make(WeightBinarizer):\n    def __init__(self, rows): super().__init__(rows)",
            "weight",
            "requires 'rows', which a scheme cannot give. It can give out_channels, fan_in, tau_min",
        ),
        (
            "class make(WeightBinarizer):\n    def __init__(self, out_channels): raise RuntimeError('no memory')",
            "weight",
            "could not be made: RuntimeError: no memory",
        ),
        (
            "class make(WeightBinarizer):\n    def forward(self, weight): return sign(weight)",
            "weight",
            "make must return a BinaryWeight(signs, scale), got a Tensor",
        ),
        ("def other(): pass", "weight", "scheme.weight: module 'MODULE' has no 'make'"),
        ("import no_such_module", "activation", "scheme.activation: importing 'MODULE' failed: ModuleNotFoundError"),
    ],
)
def test_a_wrong_binariser_is_refused_in_words_before_anything_is_trained(
    code: str,
    field: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = f"wrong_binariser_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(HEAD + code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    status = main(["run", "digits", "--network.name=resnet8", f"--scheme.{field}={module}:make", "--out=runs/x"])
    assert status == 2 and message.replace("MODULE", module) in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_binariser_that_cannot_be_made_without_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are first made on the meta device, which a user's own need not know."""
    (tmp_path / "remembering.py").write_text(
        HEAD + "import torch\nclass Half(WeightBinarizer):\n"
        "    def __init__(self, out_channels):\n        super().__init__(out_channels)\n"
        "        self.half = float(torch.tensor(0.5))\n"
        "    def forward(self, weight):\n"
        "        return BinaryWeight(sign(weight), weight.new_full((self.out_channels,), self.half))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--train.epochs=1", "--train.warmup_epochs=0", "--students={s: {}}", "--log.tensorboard=false"]
    weight = "--scheme.weight=remembering:Half"
    assert (
        main(
            ["train", "digits", "--network.name=resnet8", weight, "--member=s", "--out=x", "--data.per_class=8", *words]
        )
        == 0
    )
