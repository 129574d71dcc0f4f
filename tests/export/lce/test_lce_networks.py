"""Whole networks as .tflite files give in LCE's own interpreter what they give in PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers.exported import images, randomised
from helpers.lce import assert_same_function, count
from helpers.networks import Mixed
from sklearn.datasets import load_digits
from torch import nn

from bnn_itrd.export import agreement, predict_model
from bnn_itrd.export.lce import run_lce, time_lce, to_lce
from bnn_itrd.export.lce.interpreter import call_interpreter
from bnn_itrd.export.lce.network import to_flatbuffer
from bnn_itrd.export.lce.reader import read_lce_model
from bnn_itrd.export.lce.schema import load_schema
from bnn_itrd.models import resnet18, resnet20, vgg_small
from bnn_itrd.models.resnet import ResNetBuilder
from bnn_itrd.quant import BinaryConv2d, Scheme, binarize

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13) or sys.platform != "linux", reason="larq-compute-engine has no wheels here"
)
# The narrow family with one block per stage: every option of ResNet-20, a third of its layers.
_resnet8 = ResNetBuilder((16, 32, 64), (1, 1, 1), "pad", binary_per_conv=True, binary_stem_activation=True)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet18": (lambda: resnet18(binary="recu", width=0.25, input_shape=(3, 16, 16)), (3, 16, 16), 16),
    "resnet20": (lambda: resnet20(binary="recu", width=0.5, input_shape=(3, 16, 16)), (3, 16, 16), 18),
    "teacher": (lambda: _resnet8(input_shape=(3, 16, 16)), (3, 16, 16), 0),
    "per_block_plus_one": (
        lambda: _resnet8(binary="recu", per_conv=False, padding_value=1, input_shape=(3, 8, 8)),
        (3, 8, 8),
        6,
    ),
    "float_downsample": (
        lambda: _resnet8(binary=Scheme("xnor", "recu"), float_downsample=True, input_shape=(3, 12, 20)),
        (3, 12, 20),
        6,
    ),
    # 7 rows: average pooling that rounds up; 5 columns: every second one of an odd number.
    "odd": (lambda: _resnet8(binary="recu", padding_value=-1, input_shape=(3, 14, 10)), (3, 14, 10), 6),
    "pad": (lambda: _resnet8(binary="xnor", shortcut="pad", input_shape=(3, 28, 15)), (3, 28, 15), 6),
    "projection": (lambda: _resnet8(binary="recu", shortcut="projection", input_shape=(3, 8, 8)), (3, 8, 8), 6),
    "binary_shortcut": (lambda: _resnet8(binary="recu", shortcut="binary", input_shape=(3, 8, 8)), (3, 8, 8), 8),
    "integers": (
        lambda: _resnet8(binary="recu", shortcut="avgpool", residual_bits=4, first_last_bits=8, input_shape=(3, 8, 8)),
        (3, 8, 8),
        6,
    ),
    "vgg_small": (lambda: vgg_small(7, binary="recu", in_channels=1, input_shape=(1, 8, 16)), (1, 8, 16), 5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, folder: Path, lce: Path) -> None:
    """`to_lce` itself compares every sign in front of every layer; the logits are compared here."""
    build, shape, binary = NETWORKS[name]
    torch.manual_seed(1)
    model = randomised(build())
    file = to_lce(model, folder / f"{name}.tflite")
    assert count(file)["LceBconv2d"] == count(file)["LceQuantize"] == binary
    assert_same_function(model, file, shape)


def test_resnet18_is_small(folder: Path, lce: Path) -> None:
    # 10,985,472 weights of one bit are 1.373 MB.
    torch.manual_seed(2)
    model = randomised(resnet18(binary="recu"))
    file = to_lce(
        model,
        folder / "resnet18.tflite",
        classes=[f"class {i}" for i in range(10)],
        normalization=([0.5] * 3, [0.2] * 3),
    )
    assert 10_985_472 / 8 < file.stat().st_size <= 1_450_000
    assert count(file)["LceBconv2d"] == 16 and count(file)["CONV_2D"] == 1
    assert count(file)["REVERSE_V2"] == 1 and not count(file)["PADV2"]
    assert_same_function(model, file, (3, 32, 32), n=10)


def test_trained_network(folder: Path, lce: Path) -> None:
    """A few steps on the digits: weights and statistics as training leaves them."""
    digits = load_digits()
    x = torch.from_numpy((digits.images[:, None] / 16 - 0.3).astype(np.float32))
    y = torch.from_numpy(digits.target)
    torch.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        BinaryConv2d(32, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.Hardtanh(),
        BinaryConv2d(64, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.Hardtanh(),
        BinaryConv2d(64, 64, 3, padding=1, padding_value=-1),
        nn.BatchNorm2d(64),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        batch = slice(step * 20, step * 20 + 64)
        optimiser.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()
    model.eval()
    file = to_lce(model, folder / "digits.tflite", input_shape=(1, 8, 8))
    result = agreement(predict_model(model, x[1200:]), run_lce(file, x[1200:]), y[1200:])
    assert result.top1_model is not None and result.top1_model > 0.8
    assert result.argmax_agreement >= 0.99 and result.median_difference <= 1e-4


@pytest.mark.exhaustive
def test_torchvision_network_binarised(folder: Path, lce: Path) -> None:
    torch.manual_seed(3)
    # A ResNet-18 with half of its blocks: as large in h and w, and quicker.
    network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)
    model = randomised(binarize(network).model)
    file = to_lce(model, folder / "torchvision.tflite", input_shape=(3, 224, 224))
    binary = sum(isinstance(module, BinaryConv2d) for module in model.modules())
    assert count(file)["LceBconv2d"] == binary >= 8
    assert count(file)["MAX_POOL_2D"] == 1


@pytest.fixture(scope="module")
def mixed() -> Any:
    torch.manual_seed(6)
    return randomised(Mixed())


@pytest.fixture(scope="module")
def mixed_file(mixed: nn.Module, folder: Path, lce: Path) -> Path:
    return to_lce(mixed, folder / "mixed.tflite", input_shape=(3, 8, 8))


def test_users_own_network(mixed: nn.Module, mixed_file: Path) -> None:
    # left, twice again in two groups, hidden.
    assert count(mixed_file)["LceBconv2d"] == 6
    assert_same_function(mixed, mixed_file, (3, 8, 8))


def test_batch_can_be_resized(tiny: nn.Module, tiny_file: Path, folder: Path, lce: Path) -> None:
    """The interpreter computes all sizes again from that of the input."""
    model, _ = read_lce_model(tiny_file)
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shape = [5, 8, 8, 3]
    larger = folder / "batch.tflite"
    larger.write_bytes(to_flatbuffer(load_schema(), model))
    x = images(10, (3, 8, 8))
    (logits,), _ = call_interpreter(lce, larger, np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(logits, run_lce(tiny_file, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("indirect", "xnnpack"), [(False, False), (False, True), (True, True)])
def test_other_kernels_give_the_same(indirect: bool, xnnpack: bool, mixed_file: Path, lce: Path) -> None:
    """An application that registers LCE's operations without options, or uses TFLite's delegate, gets the same."""
    x = images(4, (3, 8, 8))
    stored = np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))
    (logits,), _ = call_interpreter(lce, mixed_file, stored, indirect=indirect, xnnpack=xnnpack)
    np.testing.assert_allclose(logits, run_lce(mixed_file, x), rtol=1e-5, atol=1e-5)


def test_time_and_threads(tiny_file: Path, lce: Path) -> None:
    assert time_lce(tiny_file, repeats=3, warmup=1) > 0
    x = images(4, (3, 8, 8))
    np.testing.assert_array_equal(run_lce(tiny_file, x, threads=2), run_lce(tiny_file, x.numpy(), python=lce))
