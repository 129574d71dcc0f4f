"""A network whose classifier is a 1x1 convolution is a student, and a teacher, like others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnn_itrd
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.errors import UserError
from bnn_itrd.models import find_head, observe
from bnn_itrd.quant import BinaryConv2d


class Convolutional(nn.Module):
    """(n, 3, h, w) -> (n, 3): the mean of a 1x1 convolution over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), BinaryConv2d(8, 6, 3), nn.BatchNorm2d(6))
        self.classifier = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).mean((2, 3))


def test_the_representation_is_the_mean_of_what_the_classifier_reads() -> None:
    torch.manual_seed(0)
    model, images = Convolutional().eval(), torch.randn(4, 3, 8, 8)
    assert find_head(model) == "classifier"
    outputs = observe(model)(images)
    expected = torch.stack([model.features(images)[..., i, j] for i in range(4) for j in range(4)]).mean(0)
    torch.testing.assert_close(outputs.representation, expected)
    # The classifier of that mean gives the logits: it is what they are computed from.
    logits = expected @ model.classifier.weight[:, :, 0, 0].T + model.classifier.bias
    torch.testing.assert_close(outputs.logits, logits)


def test_squeezenet_has_a_classifier() -> None:
    with torch.device("meta"):
        assert find_head(torchvision.models.squeezenet1_1(num_classes=5)) == "classifier.1"


def test_it_is_distilled(tmp_path: Path) -> None:
    data = TensorDataset(torch.rand(12, 3, 8, 8), torch.arange(12) % 3)
    done = bnn_itrd.distill(
        Convolutional(), Convolutional(), (data, data), train=TrainConfig(epochs=1, batch_size=6), out=tmp_path,
        log=LogConfig(progress=False, tensorboard=False), fabric=FabricConfig(accelerator="cpu"),
    )  # fmt: skip
    assert set(done.history[0]) >= {"loss_ce", "loss_itrd"}


def test_a_network_without_a_classifier_is_refused_in_words(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    data = TensorDataset(torch.rand(12, 3, 8, 8), torch.arange(12) % 3)
    with pytest.raises(UserError, match="Sequential has no linear layer, and no 1x1 convolution at its end"):
        bnn_itrd.distill(network, None, (data, data), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
