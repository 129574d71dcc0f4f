"""`validate`, `predict_model` and `agreement`: counts and differences by hand, and what they refuse."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.exported import images
from torch import nn

from bnn_itrd.export import agreement, predict_file, predict_model, session, validate


def test_validate_counts_what_differs(tiny: nn.Module, tiny_file: Path) -> None:
    other: Any = copy.deepcopy(tiny)
    with torch.no_grad():
        other[-1].bias[2] += 3
    x = images(30, (3, 8, 8))
    theirs = predict_model(other, x)
    ours = predict_file(session(tiny_file), x)
    labels = ours.argmax(1)
    result = validate(other, tiny_file, x, labels=labels, batch_size=7)
    differ = np.flatnonzero(theirs.argmax(1) != labels)
    assert 0 < len(differ) < 30
    assert [entry.image for entry in result.disagreements] == differ.tolist()
    assert result.argmax_agreement == pytest.approx(1 - len(differ) / 30)
    assert result.top1_file == 1 and result.top1_model == pytest.approx(result.argmax_agreement)
    assert result.max_difference == pytest.approx(3, abs=1e-3)
    assert result.median_difference < 1e-3
    image, model_class, file_class, margin = result.disagreements[0]
    best = np.sort(theirs[image])[::-1]
    assert (model_class, file_class) == (2, labels[image])
    assert margin == pytest.approx(best[0] - best[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(0, 3, 8, 8)}, "at least one image"),
        ({"images": torch.zeros(2, 3, 8, 8), "labels": [1]}, "labels must be 2"),
        ({"images": torch.zeros(2, 3, 8, 8), "batch_size": 0}, "batch_size must be >= 1"),
        ({"images": torch.zeros(2, 3, 8, 8), "raw_images": torch.zeros(2)}, "leave out raw_images"),
        ({"images": torch.zeros(2, 3, 8, 8).double()}, "images must be float32"),
        ({"images": torch.zeros(2, 3, 8, 9)}, r"images must be \(n, 3, 8, 8\) for this file, got \(2, 3, 8, 9\)"),
        ({"images": torch.zeros(3, 8, 8)}, r"images must be \(n, 3, 8, 8\) for this file, got \(3, 8, 8\)"),
    ],
)
def test_validate_arguments(tiny: nn.Module, tiny_file: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(tiny, tiny_file, **arguments)


def test_validate_of_another_number_of_classes(tiny: Any, tiny_file: Path) -> None:
    other = copy.deepcopy(tiny)
    other[-1] = nn.Linear(288, 1)  # would broadcast
    with pytest.raises(ValueError, match=r"the network's logits have shape \(2, 1\), the file's \(2, 3\)"):
        validate(other, tiny_file, images(2, (3, 8, 8)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": torch.zeros(0, 3, 8, 8)}, "images must hold at least one image, got none"),
        ({"images": torch.zeros(2, 3, 8, 8), "batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_predict_model_arguments(tiny: nn.Module, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_model(tiny, **arguments)


def test_agreement_by_hand() -> None:
    theirs = np.array([[1, 2, 0], [3, 1, 1], [0, 0.5, 0.25], [5, 0, 0]], np.float32)
    ours = np.array([[1, 2, 0], [0, 1, 1], [0, 0.5, 0.25], [4, 0, 0]], np.float32)
    result = agreement(theirs, ours, [1, 1, 1, 1])
    assert (result.images, result.argmax_agreement, result.max_difference) == (4, 0.75, 3)
    assert result.median_difference == 0
    assert result.disagreements == ((1, 0, 1, 2.0),)
    assert (result.top1_model, result.top1_file) == (0.5, 0.75)
    assert agreement(theirs, ours).top1_model is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sides", ["theirs", "ours", "both"])
def test_agreement_on_logits_that_are_not_finite(sides: str, value: float) -> None:
    """Comparing only the largest logits, or taking NaN for equal to NaN, would not find such logits."""
    theirs = np.array([[1, 2, 0], [3, 1, 1]], np.float32)
    ours = theirs.copy()
    for name, logits in (("theirs", theirs), ("ours", ours)):
        if sides in (name, "both"):
            logits[1, 0 if value > 0 else 2] = value
    result = agreement(theirs, ours, [1, 0])
    assert result.argmax_agreement == 0.5 and not np.isfinite(result.max_difference)
    assert [entry.image for entry in result.disagreements] == [1]
    assert result.top1_model == (1 if sides == "ours" else 0.5)
    assert result.top1_file == (1 if sides == "theirs" else 0.5)


@pytest.mark.parametrize(
    ("theirs", "ours", "labels", "message"),
    [
        ((2, 3), (2, 4), None, r"the network's logits have shape \(2, 3\), the file's \(2, 4\)"),
        ((3, 3), (2, 3), None, r"the network's logits have shape \(3, 3\), the file's \(2, 3\)"),
        ((2, 3, 4), (2, 3, 4), None, r"at least one of each, got the shape \(2, 3, 4\)"),
        ((0, 3), (0, 3), None, r"\(images, classes\) with at least one of each"),
        ((2, 3), (2, 3), [1], r"labels must be 2 class numbers, one per image, got an array of shape \(1,\)"),
    ],
)
def test_agreement_arguments(
    theirs: tuple[int, ...], ours: tuple[int, ...], labels: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(np.zeros(theirs), np.zeros(ours), labels)
