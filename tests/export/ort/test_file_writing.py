"""`to_onnx` refuses bad arguments, checks what it wrote against the network, and never loses a file that was there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bnn_itrd.export.ort.file as onnx_file
from bnn_itrd.export import (
    ExportError,
    canonical,
    milliseconds_per_image,
    predict_file,
    read_metadata,
    session,
    to_onnx,
    validate,
)


def test_baked_normalization(tiny: nn.Module, folder: Path) -> None:
    mean, std = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]
    file = to_onnx(tiny, folder / "baked.onnx", normalization=(mean, std), bake_normalization=True)
    assert read_metadata(file)["normalization_baked"] is True
    raw = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), np.uint8)
    prepared = (torch.from_numpy(raw).float() / 255 - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(
        3, 1, 1
    )
    opened = session(file)
    assert opened.get_inputs()[0].type == "tensor(uint8)"
    result = validate(tiny, opened, prepared, raw_images=raw)
    assert result.argmax_agreement >= 0.96 and result.median_difference < 1e-5
    with pytest.raises(ValueError, match="pass them as raw_images"):
        validate(tiny, opened, prepared)
    with pytest.raises(ValueError, match="images must be uint8"):
        predict_file(opened, prepared)
    assert milliseconds_per_image(opened, repeats=2) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bake_normalization": True}, r"needs normalization=\(mean, std\)"),
        ({"normalization": ([0.5], [0.5])}, "mean must have 3 values"),
        ({"normalization": ([0.5] * 3, [0.5, 0.5, 0.0])}, "std must be > 0"),
        ({"metadata": {"classes": "x"}}, "metadata must not have an entry classes"),
        ({"classes": "cat"}, "classes must be a list"),
        ({"classes": ["cat"]}, "classes must have one name per logit, got 1 names for 3 logits"),
    ],
)
def test_arguments(tiny: nn.Module, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_onnx(tiny, tmp_path / "model.onnx", **arguments)
    assert not list(tmp_path.iterdir())


def test_folder_that_does_not_exist(tiny: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        to_onnx(tiny, tmp_path / "nowhere" / "model.onnx")


def test_an_existing_file_is_never_lost(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"what was here before")

    def full(source: object, target: object) -> None:
        raise OSError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(onnx_file.os, "replace", full)
        with pytest.raises(OSError, match="disk is full"):
            to_onnx(tiny, file)
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]


def _other_threshold(model: Any) -> None:
    model[1].bias += 0.2


def _other_head(model: Any) -> None:
    model[4].bias[1] += 0.2


def _other_bit(model: Any) -> None:
    model[2].weight[1, 2, 0, 1] *= -100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_threshold, r"^2: the signs or integers of its input differ from the network's"),
        (_other_head, r"^the logits differ from the network's by"),
        (_other_bit, r"^the logits differ from the network's by"),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(
    change: Callable[[Any], None],
    message: str,
    tiny: nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        change(other)
    monkeypatch.setattr(onnx_file, "canonical", lambda model, input_shape: canonical(other))
    file = tmp_path / "model.onnx"
    file.write_bytes(b"what was here before")
    with pytest.raises(ExportError, match=message):
        to_onnx(tiny, file)
    assert file.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [file]
