"""The examples of docstrings run, each module's as it is imported from bnn_itrd."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn

import bnn_itrd
import bnn_itrd.models
from bnn_itrd.export import to_onnx, traced_once
from bnn_itrd.quant import BinaryConv2d

# Scripts of their own: what compiles the native library, what a foreign Python runs, a command's start.
_SCRIPTS = (".native.src.", "_child", ".__main__")


class Finder(doctest.DocTestFinder):
    """Finds also the examples of functions that a decorator of another module wraps, such as the networks' builders."""

    def _from_module(self, module: ModuleType, object: object) -> bool:
        plain = inspect.unwrap(object) if inspect.isfunction(object) else object
        return super()._from_module(module, plain)  # type: ignore[misc]


def modules() -> list[str]:
    """Every module of the package by its name; an editable installation has quant, models and export elsewhere."""
    found = []
    for package in (bnn_itrd, bnn_itrd.quant, bnn_itrd.models, bnn_itrd.export):
        inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        found += [package.__name__, *(module.name for module in inside)]
    return [name for name in dict.fromkeys(found) if not any(part in f"{name}." for part in _SCRIPTS)]


@pytest.fixture
def student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What the examples of export use: a folder with student.onnx and cat.png, and `network` and `images`."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = nn.Sequential(BinaryConv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).eval()
    network.input_shape = (3, 4, 4)  # type: ignore[assignment]
    statistics = ([0.5] * 3, [0.25] * 3)
    Image.new("RGB", (4, 4), "grey").save("cat.png")
    with traced_once():  # the trace is nearly all of the examples' time
        to_onnx(network, "student.onnx", classes=["cat", "dog"], normalization=statistics)
        yield {"network": network, "images": torch.randn(8, 3, 4, 4)}


def test_examples_of_docstrings_run(capsys: pytest.CaptureFixture[str], student: dict[str, object]) -> None:
    runner, tried = doctest.DocTestRunner(), set()
    for name in modules():
        used = student if name.startswith("bnn_itrd.export") else {}
        for example in Finder().find(importlib.import_module(name), name, extraglobs=used):
            runner.run(example)
            if example.examples:
                tried.update(name.split(".")[1:2])
    assert runner.failures == 0, capsys.readouterr().out
    assert tried > {"quant", "models", "export", "losses", "config"}
    assert runner.tries > 100
