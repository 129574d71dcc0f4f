"""Linear probe: features, normalisation and the classifier against NumPy, SciPy and the arrays of the files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from helpers import write_npz

import bnn_itrd.experiments.linear_probe
from bnn_itrd.cli import main
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import RunConfig, member_config
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.errors import UserError
from bnn_itrd.experiments.linear_probe import linear_probe, probe_data, representations
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.member import train_member
from bnn_itrd.training.fabric import make_fabric


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    """A folder with a teacher and a binary student ('recu') of 8x8 colour images, and 'grey' of the digits."""
    out = tmp_path_factory.mktemp("probe")
    train = TrainConfig(epochs=2, batch_size=32, lr=0.05)
    options: dict[str, Any] = {
        "network": NetworkConfig("resnet8", width=0.5),
        "train": train,
        "teacher_train": train,
        "fabric": FabricConfig(accelerator="cpu", threads=1),
        "log": LogConfig(tensorboard=False, progress=False),
    }
    colour = RunConfig(data=DataConfig("cifar10", str(tiny_npz), crop_padding=1), **options)
    grey = RunConfig(data=DataConfig("digits", per_class=8), **options)
    fabric = make_fabric(colour.fabric)
    for config, member, name in ((colour, "teacher", "teacher"), (colour, "recu", "recu"), (grey, "recu", "grey")):
        train_member(member_config(config, member), load_data(config.data), None, fabric=fabric, out=out / name)
    return out


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other images: darker, of four classes, 12x12."""
    path = write_npz(tmp_path_factory.mktemp("other") / "other.npz", n=80, size=12, classes=4, seed=7)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["x_train"], arrays["x_test"] = arrays["x_train"] // 2, arrays["x_test"] // 2
    np.savez(path, **arrays)
    return path


def features_of(model: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """The last linear layer's input, caught by a hook of our own; pixels (n, c, h, w), normalised."""
    head = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
    caught: list[np.ndarray] = []
    hook = head.register_forward_hook(lambda module, args, output: caught.append(args[0].numpy()))
    with torch.no_grad():
        model(torch.tensor(pixels, dtype=torch.float32))
    hook.remove()
    return caught[0]


def assert_close(ours: np.ndarray, expected: np.ndarray) -> None:
    """Up to rounding; in a binary network that turns a sign now and then, and a few features with it."""
    assert ours.shape == expected.shape
    assert np.isclose(ours, expected, rtol=1e-4, atol=2e-5).mean() > 0.98


@pytest.mark.parametrize("name", ["teacher", "recu"])
def test_representations(name: str, trained: Path, tmp_path: Path) -> None:
    """Of images of the network's size, normalised with the statistics of its own training images, unaugmented."""
    path = write_npz(tmp_path / "same.npz", n=60, classes=4, seed=3)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "x_train": arrays["x_train"] // 2})
    model, known, _ = load_member(trained / name)
    data = probe_data(known, {"name": "cifar100", "root": str(path)})
    features, labels = representations(model, data.train, data, known)
    pixels = (arrays["x_train"] // 2 / 255 - known["mean"]) / known["std"]
    expected = features_of(model, pixels.transpose(0, 3, 1, 2))
    assert features.dtype == np.float32 and features.shape == (60, 32)
    assert np.abs(np.array(known["mean"]) - np.array(data.mean)).min() > 0.05  # the statistics do differ
    assert_close(features, expected)
    np.testing.assert_array_equal(labels, arrays["y_train"])


def test_colour_for_a_grey_network_and_back(trained: Path, tiny_npz: Path) -> None:
    with np.load(tiny_npz) as file:
        images = file["x_test"]
    model, known, _ = load_member(trained / "grey")
    data = probe_data(known, {"name": "cifar100", "root": str(tiny_npz)})
    features, _ = representations(model, data.test, data, known)
    grey = images @ np.array([0.299, 0.587, 0.114]) / 255
    expected = features_of(model, ((grey - known["mean"][0]) / known["std"][0])[:, None])
    assert_close(features, expected)

    model, known, _ = load_member(trained / "teacher")
    data = probe_data(known, {"name": "digits"})
    features, _ = representations(model, data.test, data, known)
    raw = np.stack([data.test.raw(i) for i in range(len(data.test))]).repeat(3, axis=3)
    expected = features_of(model, ((raw / 255 - known["mean"]) / known["std"]).transpose(0, 3, 1, 2))
    assert_close(features, expected)


def test_the_classifier_is_the_optimum(trained: Path, other: Path) -> None:
    """The same objective, minimised by SciPy in float64 over features standardised here, makes the same errors."""
    model, known, _ = load_member(trained / "recu")
    data = probe_data(known, {"name": "cifar100", "root": str(other)})
    c = 0.02
    result = linear_probe(model, known, data, c=c)
    (x, y), (x_test, y_test) = (
        (z.astype(np.float64), t) for z, t in (representations(model, s, data, known) for s in (data.train, data.test))
    )
    mean, std = x.mean(0), x.std(0)
    std[std < 1e-7] = 1
    x, x_test = (x - mean) / std, (x_test - mean) / std
    n, d, k = len(x), x.shape[1], 4

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = flat[: d * k].reshape(d, k), flat[d * k :]
        logits = x @ w + b
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        residual = np.exp(log_p) - np.eye(k)[y]
        value = -log_p[np.arange(n), y].sum() + (w**2).sum() / (2 * c)
        return value, np.concatenate([(x.T @ residual + w / c).ravel(), residual.sum(0)])

    best = scipy.optimize.minimize(objective, np.zeros(d * k + k), jac=True, method="L-BFGS-B", options={"gtol": 1e-8})
    w, b = best.x[: d * k].reshape(d, k), best.x[d * k :]
    for ours, loss, z, t in (("train_top1", "train_loss", x, y), ("top1", "loss", x_test, y_test)):
        logits = z @ w + b
        cross_entropy = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(t)), t]
        assert result[loss] == pytest.approx(cross_entropy.mean(), rel=2e-3)
        # L-BFGS stops near the optimum: one image on a boundary may fall to either side.
        assert abs(result[ours] - 100 * np.mean(logits.argmax(1) == t)) < 1.5 * 100 / len(t)
    assert result["converged"] and result["dimensions"] == d and result["classes"] == k
    assert 25 < result["train_top1"] < 100  # neither chance nor everything: the errors are compared


def test_two_classes_have_the_same_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss at the optimum of W (2, d) and b (2,), as for more classes, found by SciPy."""
    rng = np.random.default_rng(0)
    x, y, c = rng.normal(size=(60, 4)), rng.integers(0, 2, 60), 0.5
    x = (x - x.mean(0)) / x.std(0)

    def cross_entropy(flat: np.ndarray) -> float:
        logits = x @ flat[:8].reshape(4, 2) + flat[8:]
        return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(60), y]).sum())

    best = scipy.optimize.minimize(lambda v: cross_entropy(v) + (v[:8] ** 2).sum() / (2 * c), np.zeros(10))
    monkeypatch.setattr(bnn_itrd.experiments.linear_probe, "representations", lambda *args: (x, y))
    data = SimpleNamespace(train=None, test=None, name="two", classes=("a", "b"))
    result = linear_probe(torch.nn.Identity(), {"input_shape": (3, 8, 8)}, data, c=c)  # type: ignore[arg-type]
    assert result["train_loss"] == pytest.approx(cross_entropy(best.x) / 60, rel=1e-5)


def test_the_network_stays_frozen(trained: Path, other: Path) -> None:
    model, known, _ = load_member(trained / "recu")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    linear_probe(model, known, probe_data(known, {"name": "cifar100", "root": str(other)}))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["teacher", "recu"])
def test_command(name: str, trained: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["probe", str(trained / name), "--data", "cifar100", "--data.root", str(other)]
    assert main([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["path"].endswith(f"{name}/last.pt") and values["data"] == "cifar100"
    assert (values["train"], values["test"], values["input_shape"]) == (80, 40, [3, 8, 8])
    assert 0 <= values["top1"] <= values["train_top1"] <= 100
    assert main([*arguments, "--best", "--max_iterations", "1"]) == 0
    shown = capsys.readouterr().out
    assert "of cifar100 (4 classes)" in shown and "did not converge in 1 iteration:" in shown


def test_its_own_images_need_no_root(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The classes are told by the brightness of a channel: nearly all of them."""
    assert main(["probe", str(trained / "teacher"), "--data=cifar10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] > 90


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "probe needs a data set: --data NAME"),
        (["--data=cifar100"], "data set 'cifar100' needs its images"),
        (["--data=cifar11"], "unknown data set 'cifar11'"),
        (["--data=digits", "--c=0"], "c must be > 0, got 0.0"),
        (["--data=digits", "--c=much"], "c must be float, got much"),
        (["--data=digits", "--max_iterations=0"], "max_iterations must be > 0, got 0"),
        (["--data=digits", "--data.image_size=16"], "takes images of 8 x 8 pixels, but digits has 16 x 16"),
    ],
)
def test_messages(arguments: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(trained / "recu"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(tmp_path), "--data=digits"]) == 2
    assert "has no checkpoint last.pt" in capsys.readouterr().err


def test_classes_without_training_images(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    images = np.zeros((4, 8, 8, 3), np.uint8)
    labels = np.zeros(4, np.int64)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels, classes=np.array(["a", "b"]))
    model, known, _ = load_member(trained / "recu")
    with pytest.raises(UserError, match="are of one class"):
        linear_probe(model, known, probe_data(known, {"name": "cifar100", "root": str(path)}))
    two = np.arange(4) % 2
    np.savez(path, x_train=images, y_train=two, x_test=images, y_test=two + 1, classes=np.array(["a", "b", "c"]))
    with pytest.raises(UserError, match="test images of class 'c', but no training image"):
        linear_probe(model, known, probe_data(known, {"name": "cifar100", "root": str(path)}))
