"""The sizes of a network's outputs are found before training, also where its code does not know the meta device."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers.setting import Sizes
from bnn_itrd.errors import UserError
from bnn_itrd.runs.sizes import sizes_of_definition

CODE = """
import torch
from torch import nn
from bnn_itrd.quant import BinaryWeight, WeightBinarizer, sign

class Half(WeightBinarizer):
    def __init__(self, out_channels):
        super().__init__(out_channels)
        self.half = float(torch.tensor(0.5))

    def forward(self, weight):
        return BinaryWeight(sign(weight), weight.new_full((self.out_channels,), self.half))

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5, num_classes)
    def forward(self, x):
        return self.head((self.stem(x) + torch.ones(5, 6, 6)).mean((2, 3)))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory_case.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "memory_case", raising=False)


def images(size: int) -> ImageData:
    pairs = [(np.zeros((size, size, 3), np.uint8), k % 3) for k in range(6)]
    return ImageData.from_datasets(pairs, pairs, classes=["a", "b", "c"], mean=(0.5,) * 3, std=(0.2,) * 3)


def test_a_constructor_that_reads_a_value(folder: None) -> None:
    network = NetworkConfig(name="resnet8", width=0.25)
    wanted = sizes_of_definition(network, SchemeConfig(), images(8))
    assert sizes_of_definition(network, SchemeConfig(weight="memory_case:Half"), images(8)) == wanted


def test_a_forward_pass_that_makes_tensors(folder: None) -> None:
    assert sizes_of_definition(NetworkConfig(name="memory_case:Net"), None, images(8)) == Sizes(3, 5, ())


def test_images_that_the_network_does_not_take(folder: None) -> None:
    with pytest.raises(UserError, match="^the network cannot be used on images of 3x10x10: The size of tensor a"):
        sizes_of_definition(NetworkConfig(name="memory_case:Net"), None, images(10))


def test_a_library_that_computes_its_widths_with_tensors() -> None:
    """torchvision's RegNets cannot be made on the meta device; the sizes are those of the one that is made."""
    sizes = sizes_of_definition(NetworkConfig(name="torchvision:regnet_y_400mf"), None, images(32))
    assert (sizes.logits, sizes.representation) == (3, 440)
