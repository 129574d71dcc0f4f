"""The file for FINN: the shapes of its values, its input images, its thresholds and its poolings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from bnn_itrd import recipes
from bnn_itrd.config.parse import run_config
from bnn_itrd.export import ExportError, predict_model, read_metadata
from bnn_itrd.export.fpga import check_fpga, qonnx_file, to_qonnx
from bnn_itrd.export.fpga.finn import HostImages, put_borders_back
from bnn_itrd.export.fpga.finn.grids import Grid
from bnn_itrd.export.fpga.finn.thresholds import first_numbers
from bnn_itrd.export.fpga.standard import to_standard
from bnn_itrd.models import vgg_small
from bnn_itrd.quant import BinaryConv2d, IntegerConv2d, IntegerLinear, IntegerQuantizer
from bnn_itrd.runs.networks import build

SHAPE = (3, 32, 32)  # of the recipes' images


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ir.Model]:
    """Exports the untrained student of the recipe fpga-vgg_small; returns (file, its graph in standard ONNX)."""
    config = run_config("run", "", recipes.read("fpga-vgg_small"), [], extra={})[0]
    torch.manual_seed(0)
    model = build(config.network, config.scheme, num_classes=10, input_shape=SHAPE)
    graphs: list[Any] = []
    check = qonnx_file._check_graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qonnx_file, "_check_graph", lambda *args: (graphs.append(to_standard(args[1])), check(*args)))
        return to_qonnx(model, tmp_path_factory.mktemp("finn") / "vgg.onnx", flavor="finn"), graphs[0]


def test_the_shapes_in_a_graph_are_those_its_operations_give(recipe_file: tuple[Path, ir.Model]) -> None:
    """A pass that moves a node must also update the shape of its output."""
    standard = recipe_file[1]
    stated = {v.name: list(v.shape) for node in standard.graph for v in node.outputs if v.shape is not None}
    for node in standard.graph:
        for value in node.outputs:
            value.shape = None
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(standard), strict_mode=True, data_prop=True).graph
    found = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info}
    assert len(stated) > 10
    for name, shape in stated.items():
        if name in found:  # the batch has a name
            assert shape[1:] == found[name][1:], name


class Small(nn.Module):
    """A network on (n, 3, 8, 8) with integers, signs, an addition, a pooling and a mean.

    norm_first: the BatchNorm stands before the pooling and not after it.
    """

    def __init__(self, *, norm_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input_shape, self.norm_first = (3, 8, 8), norm_first
        self.stem, self.stem_norm = IntegerConv2d(3, 8, 3, 1, 1, bits=8, bound=4.0), nn.BatchNorm2d(8)
        self.stream = IntegerQuantizer(4)
        self.conv1 = BinaryConv2d(8, 8, 3, padding=1, padding_value=-1)
        self.norm1, self.operand = nn.BatchNorm2d(8), self.stream.tied()
        self.conv2, self.norm2 = BinaryConv2d(8, 8, 3, padding=1, padding_value=-1), nn.BatchNorm2d(8)
        self.conv3, self.norm3, self.total = BinaryConv2d(8, 8, 1), nn.BatchNorm2d(8), self.stream.tied()
        self.linear = IntegerLinear(8, 4, bits=8, normalise=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stream(self.stem_norm(self.stem(x)))
        x = self.operand(self.norm1(self.conv1(x))) + x
        x = self.conv2(x)
        x = F.max_pool2d(self.norm2(x), 2) if self.norm_first else self.norm2(F.max_pool2d(x, 2))
        x = self.total(self.norm3(self.conv3(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def planted(model: Small) -> Small:
    """Sets BatchNorm so that factors have any sign or are 0, and thresholds lie at or 1e-6 beside whole numbers."""
    factors = torch.tensor([1.0, -1.0, 0.0625, -0.0625, 0.3, -0.3, 0.0, 1.0])
    with torch.no_grad():
        for norm in (model.norm1, model.norm2, model.norm3):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.eps = 0.0
            norm.running_var.fill_(1.0)
            norm.running_mean.copy_(torch.tensor([70.0, 6.0, 3.0, -2.0, 1.0, 0.0, 5.0, -4.0]))
            norm.weight.copy_(factors)
            norm.bias.copy_(torch.tensor([-1.2e-6, 1e-6, 0.0, 0.0, -1e-6, 1e-6, 0.25, 0.0]))
        for conv in (model.conv1, model.conv2, model.conv3):
            conv.weight_binarizer.alpha.copy_(torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0]))
    return model.eval()


@pytest.fixture(scope="module")
def planted_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_qonnx(planted(Small()), tmp_path_factory.mktemp("finn") / "planted.onnx", flavor="finn")


def test_a_threshold_lies_between_whole_numbers_and_decides_as_the_network_does(planted_file: Path) -> None:
    """All possible sums are tried, also halves, which are rounded to the even integer."""
    model = planted(Small())
    graph = onnx.load(str(planted_file)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producer = {node.output[0]: node for node in graph.node}
    for name, conv, norm, quantiser in (
        ("operand.integers", model.conv1, model.norm1, model.operand),
        ("conv3.sign", model.conv2, model.norm2, None),
        ("total.integers", model.conv3, model.norm3, model.total),
    ):
        node = producer[name]
        assert node.op_type == "MultiThreshold" and producer[node.input[0]].op_type == "Conv"
        table = constants[node.input[1]]
        assert table.shape == (8, 1 if quantiser is None else 15)
        most = conv.weight[0].numel()
        # FINN counts ones, (sum + most) / 2, and stops at a threshold below 0: what all sums reach is at the lowest.
        assert ((np.abs(table - np.rint(table)) == 0.5) | (table == -most)).all() and table.min() >= -most
        assert (np.diff(table, axis=1) >= 0).all()
        assert name != "conv3.sign" or (table[6] == -most).all()
        sums = torch.arange(-most, most + 1, 2, dtype=torch.float32)  # an even number of taps
        alpha = conv.weight_binarizer.alpha.detach()
        with torch.no_grad():
            y = norm((sums.reshape(1, 1, -1, 1) * alpha.reshape(1, -1, 1, 1)).contiguous())
            want = torch.where(y >= 0, 1.0, -1.0) if quantiser is None else quantiser(y) / quantiser.scale()
        turn = np.where((alpha * norm.weight.detach()).numpy() < 0, -1, 1)
        turn = np.where(norm.weight.detach().numpy() == 0, np.where(alpha.numpy() < 0, -1, 1), turn)
        reached = (sums.numpy()[None] * turn[:, None])[..., None] >= table[:, None]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        got = reached.sum(-1) * attributes["out_scale"] + attributes["out_bias"]
        np.testing.assert_array_equal(got, np.rint(want.numpy()[0, :, :, 0]), err_msg=name)
        weight = producer[producer[node.input[0]].input[1]]
        signs = constants[weight.input[0]]
        np.testing.assert_array_equal(signs, conv.binary_weight().signs.detach() * turn.reshape(-1, 1, 1, 1))


def test_integers_of_two_bits_are_no_signs() -> None:
    """They have four values, -2 to 1, and so three thresholds, where signs have one."""
    sums, turn = Grid(0.5, 1.0, -9, 9), np.array([1])
    two_bits, signs = (first_numbers([], Grid(1.0, 1.0, low, 1), sums, turn).tolist() for low in (-2, -1))
    assert two_bits == [[-2, -1, 2]] and signs == [[0]]  # of halves; ties go to the even integer


def test_whole_numbers_flow_from_the_images_to_the_logits(planted_file: Path) -> None:
    """The host makes whole numbers of images; the graph computes on them in standard ONNX, with thresholds alone."""
    model = planted(Small())
    proto = onnx.load(str(planted_file))
    kinds = [node.op_type for node in proto.graph.node]
    assert set(kinds) == {"Quant", "BipolarQuant", "Conv", "MultiThreshold", "Add", "MaxPool", "MatMul", "Mul"} | {
        "GlobalAveragePool",
        "Flatten",
    }
    assert kinds[-3:] == ["MatMul", "Mul", "Add"] and kinds.count("Mul") == 1
    (annotation,) = proto.graph.quantization_annotation
    pairs = {entry.key: entry.value for entry in annotation.quant_parameter_tensor_names}
    assert annotation.tensor_name == "images" and pairs == {"finn_datatype": "INT8"}
    metadata = read_metadata(planted_file)
    host = HostImages(metadata["input_datatype"], float(metadata["input_scale"]), metadata["input_layer"])
    quantiser = model.stem.input_quantizer
    assert host == ("INT8", float(quantiser.scale().detach()), "stem.input_quantizer")
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2
    x[0, 0, 0] = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.5, -128.5, 500]) * host.scale  # ties, and both ends
    whole = host.of(x.numpy())
    with torch.no_grad():
        np.testing.assert_array_equal(whole, np.rint((quantiser(x) / quantiser.scale()).numpy()))
    standard = ir.to_proto(to_standard(put_borders_back(ir.from_proto(proto))))
    session = onnxruntime.InferenceSession(standard.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": whole})
    np.testing.assert_allclose(logits, predict_model(model, x), atol=1e-5)


def test_a_negative_factor_behind_a_pooling_is_refused_and_known(tmp_path: Path) -> None:
    model = planted(Small(norm_first=False))
    (layer,) = check_fpga(model).failures
    assert layer.operation == "MaxPool" and "3 channels have a negative factor behind it" in layer.note
    assert "norm_before_pool=True" in layer.ways_out[0]
    with pytest.raises(ExportError, match=r"3 channels of the MaxPool have a negative factor.*norm_before_pool"):
        to_qonnx(model, tmp_path / "net.onnx", flavor="finn")
    assert not list(tmp_path.iterdir())
    with torch.no_grad():
        model.norm2.weight.abs_()
    assert check_fpga(model).ok
    assert to_qonnx(model, tmp_path / "net.onnx", flavor="finn").is_file()


def test_the_recipe_maps_whatever_training_makes_of_the_factors(tmp_path: Path) -> None:
    """The recipe has BatchNorm before the MaxPool, so that factors of any sign are mapped; the paper has it after."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"binary": "recu", "padding_value": -1, "first_last_bits": 8, "input_shape": (3, 16, 16)}
    model = vgg_small(4, norm_before_pool=True, **options)
    assert [type(m).__name__ for m in model.layer4] == ["BinaryConv2d", "BatchNorm2d", "MaxPool2d", "Hardtanh"]
    assert [type(m).__name__ for m in vgg_small(4, **options).layer4][1:3] == ["MaxPool2d", "BatchNorm2d"]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_()
    report = check_fpga(model)
    assert report.ok, str(report)
    graph = onnx.load(str(to_qonnx(model, tmp_path / "vgg.onnx", flavor="finn"))).graph
    producer = {node.output[0]: node.op_type for node in graph.node}
    assert [producer[n.input[0]] for n in graph.node if n.op_type == "MaxPool"] == ["MultiThreshold"] * 3
    assert not [n for n in graph.node if n.op_type == "BatchNormalization"]


class Images(nn.Module):
    """A network that does more with its images than rounding them: it rounds them in two ways, or computes first."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.input_shape, self.how = (3, 4, 4), how
        self.first, self.second = IntegerConv2d(3, 4, 1, bits=8), IntegerConv2d(3, 4, 1, bits=8, bound=2.0)
        self.last = BinaryConv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x) + self.second(x) if self.how == "twice" else self.first(x * 0.5 - 0.25)
        return self.last(y).flatten(1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("twice", "the images are quantised in different ways, by first.*, second"),
        ("scaled", "shifts or scales the images"),
    ],
)
def test_images_that_the_host_cannot_round_are_refused(how: str, message: str, tmp_path: Path) -> None:
    model = Images(how).eval()
    with pytest.raises(ExportError, match=message):
        to_qonnx(model, tmp_path / "net.onnx", flavor="finn")
    report = check_fpga(model)
    assert not report.ok
    if how == "scaled":
        assert any("floats of the images" in layer.note for layer in report.failures)
