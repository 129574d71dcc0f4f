"""VGG-9: torchvision's VGG-11 with one linear layer for three, its stages, its binary form and its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from bnn_itrd.export import to_onnx, validate
from bnn_itrd.models import observe, summary, vgg9
from bnn_itrd.quant import BinaryConv2d


def test_it_answers_as_vgg11_does_up_to_the_classifier() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.vgg11_bn(weights=None, num_classes=3).eval()
    ours = vgg9(3).eval()
    own, there = ours.features.state_dict(), theirs.features.state_dict()
    assert {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in there.items()}
    ours.features.load_state_dict(there)
    x = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        features = theirs.features(x)
        seen = observe(ours)(x)
    torch.testing.assert_close(seen.representation, features.mean((2, 3)))
    torch.testing.assert_close(seen.stages[-1], features)
    # Nine layers: eight convolutions and the classifier.
    assert [type(m) for m in ours.modules() if isinstance(m, (nn.Conv2d, nn.Linear))] == [nn.Conv2d] * 8 + [nn.Linear]


def test_its_stages_are_as_large_as_those_of_a_resnet() -> None:
    with torch.device("meta"):
        for binary in (None, "recu"):
            maps = observe(vgg9(67, binary=binary, input_shape=(3, 224, 224)).eval())(torch.zeros(1, 3, 224, 224))
            assert [tuple(s.shape[1:]) for s in maps.stages] == [
                (128, 56, 56),
                (256, 28, 28),
                (512, 14, 14),
                (512, 7, 7),
            ]
        theirs = observe(torchvision.models.resnet34().eval())(torch.zeros(1, 3, 224, 224))
    assert [tuple(s.shape[2:]) for s in theirs.stages] == [(56, 56), (28, 28), (14, 14), (7, 7)]


def test_parameters_and_products_by_hand() -> None:
    plan = [
        (3, 64, 32),
        (64, 128, 16),
        (128, 256, 8),
        (256, 256, 8),
        (256, 512, 4),
        (512, 512, 4),
        *[(512, 512, 2)] * 2,
    ]
    weights = sum(9 * i * o + 3 * o for i, o, _ in plan)  # with a bias, and two numbers of the BatchNorm
    with torch.device("meta"):
        assert sum(p.numel() for p in vgg9(100).parameters()) == weights + 100 * 513
    made = summary(vgg9(100, width=0.125))
    assert made.float_macs == sum(9 * max(i // 8, 3) * (o // 8) * size**2 for i, o, size in plan) + 64 * 100


def test_a_student_is_binary_behind_its_first_convolution_and_fits_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = vgg9(4, binary="recu", width=0.125)
    for _ in range(2):
        student(torch.randn(8, 3, 32, 32))
    student.eval()
    assert sum(isinstance(m, BinaryConv2d) for m in student.modules()) == 7
    to_onnx(student, tmp_path / "s.onnx")
    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    assert validate(student, tmp_path / "s.onnx", images).median_difference < 1e-5


def test_it_refuses_what_five_pools_leave_nothing_of() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels on each side, got 16 x 32"):
        vgg9(input_shape=(3, 16, 32))
    with pytest.raises(ValueError, match="needs a binary network"):
        vgg9(padding_value=1)
