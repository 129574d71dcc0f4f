"""Which reshapes and means FINN can map: here the graph in the file differs from the traced one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_itrd.export import ExportError, canonical, passes
from bnn_itrd.export.fpga import check_fpga, to_qonnx
from bnn_itrd.export.graph import nodes_of
from bnn_itrd.export.lce.translate import translate
from bnn_itrd.export.tracing.batch_check import refuse_mixing
from bnn_itrd.quant import BinaryConv2d, IntegerConv2d, IntegerLinear, IntegerQuantizer

SHAPE = (3, 8, 8)


class Steps(nn.Module):
    """A network of modules and functions of a tensor, one after the other."""

    def __init__(self, *steps: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = {i: step for i, step in enumerate(steps) if not isinstance(step, nn.Module)}
        self.layers = nn.ModuleDict({str(i): step for i, step in enumerate(steps) if isinstance(step, nn.Module)})

    def forward(self, x: Tensor) -> Tensor:
        for i in range(len(self.functions) + len(self.layers)):
            x = self.functions[i](x) if i in self.functions else self.layers[str(i)](x)
        return x


def verdicts(*steps: nn.Module | Callable[[Tensor], Tensor], shape: tuple[int, ...] = SHAPE) -> list[tuple[str, bool]]:
    torch.manual_seed(0)
    return [(layer.operation, layer.maps) for layer in check_fpga(Steps(*steps).eval(), input_shape=shape).layers]


def patches(x: Tensor) -> Tensor:
    """Moves patches of 2x2 pixels to channels: (n, 3, 8, 8) -> (n, 12, 4, 4)."""
    return x.reshape(-1, 12, 4, 4)


def test_integers_of_reshaped_images_are_made_on_the_host() -> None:
    """The file has the quantiser of the images before the reshape, at its input."""
    model = Steps(patches, IntegerQuantizer(8), IntegerConv2d(12, 4, 3)).eval()
    rows = check_fpga(model, input_shape=SHAPE).layers
    assert [(row.operation, row.maps) for row in rows] == [
        ("INT8", True),
        ("reshape", False),
        ("INT8", True),  # the convolution's own
        ("INT8 conv", True),
    ]
    assert rows[0].note == "on the host" and rows[2].note == "255 thresholds per channel"


def test_integers_stay_integers_in_another_shape() -> None:
    """The reshape cannot be mapped; the convolution after it still multiplies whole numbers."""
    first = BinaryConv2d(3, 3, 3, padding=1, padding_value=-1)
    assert verdicts(first, IntegerQuantizer(4), patches, IntegerConv2d(12, 4, 3))[2:] == [
        ("INT4", True),
        ("INT8", True),
        ("reshape", False),
        ("INT8 conv", True),
    ]


def test_a_mean_over_rows_alone_is_not_the_one_over_whole_images() -> None:
    """A value (n, 4, 8) is no image, so the file has a ReduceMean, which FINN cannot map."""
    steps = (IntegerQuantizer(8), lambda x: x.mean((-2, -1)).reshape(-1, 1), IntegerLinear(1, 5))
    assert ("global average", False) in verdicts(*steps, shape=(4, 8))
    model = Steps(IntegerQuantizer(8), lambda x: x.mean((-2, -1)), IntegerLinear(3, 5)).eval()
    assert ("global average", True) in [
        (row.operation, row.maps) for row in check_fpga(model, input_shape=SHAPE).layers
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_a_mean_over_whole_images_is_named(keep: bool) -> None:
    graph = canonical(Steps(lambda x: x.mean((2, 3), keepdim=keep)).eval(), input_shape=SHAPE)
    shape = list(graph.graph.outputs[0].shape or ())
    assert passes.global_pooling.write_global_pooling(graph) == 1
    assert [node.op_type for node in graph.graph] == ["GlobalAveragePool"] + ["Flatten"] * (not keep)
    assert list(nodes_of(graph, "GlobalAveragePool")[0].outputs[0].shape or ()) == ["batch", 3, 1, 1]
    assert list(graph.graph.outputs[0].shape or ()) == shape and graph.graph.outputs[0].name == "logits"


def test_what_cannot_be_written_is_judged_all_the_same(tmp_path: Path) -> None:
    """The writer stops at the first operation that it cannot write; the check judges the later ones too."""
    model = Steps(lambda x: x.flip(2), BinaryConv2d(3, 4, 3, padding=1), lambda x: x.erf(), nn.Flatten()).eval()
    failed = [layer.operation for layer in check_fpga(model, input_shape=SHAPE).failures]
    assert "binary 3x3 conv" in failed and "Erf" in failed
    mixing = Steps(lambda x: x - x.mean(0, keepdim=True), BinaryConv2d(3, 4, 3, padding=1)).eval()
    with pytest.raises(ExportError, match="over the images of a batch"):
        to_qonnx(mixing, tmp_path / "net.onnx", input_shape=SHAPE)
    assert "binary 3x3 conv" in [layer.operation for layer in check_fpga(mixing, input_shape=SHAPE).failures]


def test_a_size_that_is_computed_is_no_batch() -> None:
    """A bilinear U-Net resizes to the size of another map: the Concat of this size's numbers has no images."""

    def upsampled(x: Tensor) -> Tensor:
        return F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear")

    model = Steps(BinaryConv2d(3, 4, 3, padding=1), upsampled).eval()
    graph = canonical(model, input_shape=SHAPE)
    refuse_mixing(graph)
    with pytest.raises(
        ExportError, match="the network's Resize: an LCE file cannot hold the operation Resize: replace it by"
    ):
        translate(graph)
