"""VGG-small: where it pools, and the sizes of images it refuses."""

from __future__ import annotations

import pytest

from bnn_itrd.models import vgg_small


def test_vgg_small_pools_before_the_batchnorm() -> None:
    kinds = [type(m).__name__ for m in vgg_small(binary="recu").layer2]
    assert kinds == ["BinaryConv2d", "MaxPool2d", "BatchNorm2d", "Hardtanh"]


def test_vgg_small_refuses_odd_sizes() -> None:
    with pytest.raises(ValueError, match="multiples of 8, got 30 x 32"):
        vgg_small(input_shape=(3, 30, 32))
