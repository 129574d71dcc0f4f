"""`to_lce` refuses networks that LCE cannot run, checks what it wrote, and never loses an older file."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bnn_itrd.export.lce.tflite_file as tflite_file
import bnn_itrd.export.lce.translate as translate_module
from bnn_itrd.export import ExportError, canonical
from bnn_itrd.export.lce import to_lce
from bnn_itrd.quant import BinaryConv2d

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)


def _net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Identity(), nn.Sequential(*layers))


class Turns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2)


class Index(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, [2, 0, 1]].flatten(1)


@pytest.mark.parametrize(
    ("build", "shape", "message"),
    [
        (
            lambda: _net(BinaryConv2d(64, 64, 3, groups=64)),
            (64, 4, 4),
            r"^1\.0: it has 64 groups.*use at most 32 groups",
        ),
        (lambda: _net(nn.Conv1d(3, 4, 3)), (3, 8), r"^1\.0: it is a Conv of 1 dimensions: .*use 2-d layers"),
        (
            lambda: _net(nn.ConvTranspose2d(3, 4, 3)),
            (3, 8, 8),
            r"^1\.0: an LCE file cannot hold the operation ConvTranspose",
        ),
        (lambda: _net(nn.ELU(2.0)), (3, 8, 8), r"^1\.0: it is an ELU with another alpha than 1: use alpha=1"),
        (lambda: _net(nn.MaxPool2d(2, dilation=2)), (3, 8, 8), r"^1\.0: it is a pooling with dilation: pool without"),
        (lambda: _net(nn.Softmax(2)), (3, 8, 8), r"^1\.0: it is a softmax over axis 2 of 4: make that axis"),
        (lambda: _net(Turns()), (3, 8, 8), r"^1\.0: its slice has computed bounds or a negative step"),
        (
            lambda: _net(Index()),
            (3, 8, 8),
            r"^1\.0: an LCE file cannot hold the operation GatherND: replace it by an operation that docs",
        ),
        (lambda: nn.Identity(), (3, 8, 8), "the network computes nothing|do not depend on its images"),
    ],
)
def test_what_lce_cannot_carry(
    build: Callable[[], nn.Module], shape: tuple[int, ...], message: str, tmp_path: Path, lce: Path
) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(b"what was here before")
    with pytest.raises(ExportError, match=message):
        to_lce(build().eval(), file, input_shape=shape)
    assert file.read_bytes() == b"what was here before" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"classes": "cat"}, ValueError, "classes must be a list of names, got one string, 'cat'"),
        ({"classes": ["cat"]}, ValueError, "classes must have one name per logit, got 1 names for 3 logits"),
        ({"normalization": ([0.5], [0.5])}, ValueError, "normalization's mean must have 3 values"),
        ({"metadata": {"sha256": "x"}}, ValueError, "metadata must not have an entry sha256, which the export writes"),
        (
            {"metadata": {"path": Path("x")}},
            ValueError,
            "metadata must be values that JSON can hold: .*not JSON serializable",
        ),
        ({"python": "nowhere/python"}, ExportError, "there is no Python interpreter .*nowhere/python"),
    ],
)
def test_arguments(tiny: nn.Module, tmp_path: Path, arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        to_lce(tiny, tmp_path / "model.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_shape_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Linear has no input_shape: pass input_shape=\(c, h, w\)"):
        to_lce(nn.Linear(3, 3), tmp_path / "model.tflite")
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere"):
        to_lce(nn.Linear(3, 3), tmp_path / "nowhere" / "model.tflite", input_shape=(3,))


def test_an_existing_file_is_never_lost(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lce: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(b"what was here before")

    def full(source: object, target: object) -> None:
        raise OSError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(tflite_file.os, "replace", full)
        with pytest.raises(OSError, match="disk is full"):
            to_lce(tiny, file)
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]


def _other_threshold(model: Any) -> None:
    model[1].bias += 0.2


def _other_head(model: Any) -> None:
    model[6].bias[1] += 0.2


def _other_bit(model: Any) -> None:
    model[3].weight[1, 2, 0, 1] *= -100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_threshold, r"^3: in LCE's interpreter the signs or integers of its input differ"),
        (_other_head, "^in LCE's interpreter the logits differ"),
        (_other_bit, "^in LCE's interpreter the logits differ"),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(
    change: Callable[[Any], None],
    message: str,
    tiny: nn.Module,
    tmp_path: Path,
    lce: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        change(other)
    monkeypatch.setattr(tflite_file, "canonical", lambda model, input_shape: canonical(other))
    with pytest.raises(ExportError, match=message):
        to_lce(tiny, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_binary_layer_that_became_a_float_one_is_not_written(
    tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lce: Path
) -> None:
    translate = translate_module.translate

    def forget(graph: Any) -> Any:
        return translate(graph)._replace(expected=2, layers=2)

    monkeypatch.setattr(translate_module, "translate", forget)
    with pytest.raises(ExportError, match="has 1 binary operations, but the network's 2 binary layers need 2"):
        to_lce(tiny, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
