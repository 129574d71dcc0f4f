"""A network in which the images of a batch influence each other is refused for files that take one image at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fpga import SHAPE
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical
from bnn_itrd.export.fpga import to_qonnx
from bnn_itrd.export.lce import to_lce
from bnn_itrd.export.tracing.batch_check import refuse_mixing
from bnn_itrd.quant import BinaryConv2d


class MixesImages(nn.Module):
    def __init__(self, how: Any) -> None:
        super().__init__()
        self.conv = BinaryConv2d(3, 4, 3, padding=1, padding_value=-1)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.how(self.conv(x))
        return y.flatten(1)


MIXING: dict[str, tuple[Any, str]] = {
    "mean": (lambda y: y - y.mean(0, keepdim=True), "ReduceMean over the images of a batch"),
    "mean_of_all": (lambda y: y - y.mean(), "over the images of a batch"),
    "max_of_three": (lambda y: y - y.amax((0, 2, 3), keepdim=True), "ReduceMax over the images of a batch"),
    "softmax": (lambda y: y.softmax(0), "Softmax over the images of a batch"),
    "concatenation": (lambda y: torch.cat([y, -y]), "Concat over the images of a batch"),
    "first_image": (lambda y: y - y[:1], "over the images of a batch"),
    "similarity": (lambda y: y.flatten(1) @ y.flatten(1).T @ y.flatten(1), "images of a batch"),
    "batch_statistics": (nn.BatchNorm2d(4, track_running_stats=False), "ReduceMean over the images of a batch"),
}


@pytest.mark.parametrize("name", MIXING)
def test_images_of_a_batch_must_not_meet(name: str) -> None:
    how, message = MIXING[name]
    graph = canonical(nn.Sequential(nn.Identity(), MixesImages(how)).eval(), input_shape=SHAPE)
    with pytest.raises(ExportError, match=rf"^1(\.how)?: .*{message}.*: change the network so that"):
        refuse_mixing(graph)


@pytest.mark.parametrize("write", [to_qonnx, to_lce])
def test_files_that_take_one_image_refuse_what_depends_on_others(write: Any, tmp_path: Path) -> None:
    if write is to_lce and (sys.version_info >= (3, 13) or sys.platform != "linux"):
        pytest.skip("larq-compute-engine has no wheels here")
    model = nn.Sequential(nn.Identity(), MixesImages(MIXING["mean"][0])).eval()
    with pytest.raises(ExportError, match="^1: ReduceMean over the images of a batch: change the network so that"):
        write(model, tmp_path / "net.onnx", input_shape=SHAPE)
    assert not list(tmp_path.iterdir())


def test_axes_of_one_image_may_meet(tmp_path: Path) -> None:
    """This holds too where the batch is no longer the first axis: attention moves it to the second."""
    how = lambda y: y.flatten(2).permute(2, 0, 1).softmax(0).amax(0)  # noqa: E731
    file = to_qonnx(MixesImages(how).eval(), tmp_path / "net.onnx", input_shape=SHAPE)
    assert file.is_file()
