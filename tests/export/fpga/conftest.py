"""Fixtures of the tests of export/fpga: qonnx's environment, and the files of two small networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.fpga import small, small_vgg, trained

from bnn_itrd.export import traced_once
from bnn_itrd.export.fpga import to_qonnx


@pytest.fixture(scope="session")
def qonnx(runtimes: Callable[[str], Path]) -> Path:
    """Returns the Python interpreter with qonnx installed: the user's, or else one that is made for this run."""
    return runtimes("fpga")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Writes the QONNX files of a small ResNet and a small VGG, for FINN and in general; returns them by name."""
    folder = tmp_path_factory.mktemp("fpga")
    vgg = trained(small_vgg(first_last_bits=8))
    made = {}
    for name, model in (("resnet", trained(small())), ("vgg", vgg)):
        with traced_once():
            for flavor in ("qonnx", "finn"):
                made[f"{name}.{flavor}"] = to_qonnx(model, folder / f"{name}.{flavor}.onnx", flavor=flavor)
    return made
