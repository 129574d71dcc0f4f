"""The content of QONNX files, for FINN and in general; networks that are refused; and that no older file is lost."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from helpers.fpga import SHAPE, rand, small, small_vgg, trained
from onnx import numpy_helper
from torch import nn

from bnn_itrd.export import ExportError, canonical, read_metadata, to_onnx, validate
from bnn_itrd.export.fpga import inference_cost, to_qonnx
from bnn_itrd.export.graph import add_initializer, attribute, nodes_of


@pytest.mark.parametrize("functions", [True, False])
def test_a_ready_network_is_a_plain_onnx_file_too(functions: bool, tmp_path: Path) -> None:
    model = trained(small(per_conv=True))
    assert len(nodes_of(canonical(model), "Quant", "bnn_itrd")) == 1 + 2 * 4 + 1 + 4
    file = to_onnx(model, tmp_path / "ready.onnx", functions=functions)
    result = validate(model, file, rand(40, *SHAPE))
    assert result.argmax_agreement >= 0.95 and result.median_difference < 1e-5


def initializers(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_the_order_is_conv_alpha_norm_sign(files: dict[str, Path]) -> None:
    model = onnx.load(files["resnet.qonnx"])
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 13), ("qonnx.custom_op.general", 2)}
    assert model.ir_version <= 10 and model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    constants = initializers(model.graph)
    producer = {node.output[0]: node for node in model.graph.node}
    readers = {name: node for node in model.graph.node for name in node.input}
    binary = [n for n in model.graph.node if n.op_type == "Conv" and producer[n.input[1]].op_type == "BipolarQuant"]
    assert len(binary) == 5
    for conv in binary:
        weight = producer[conv.input[1]]
        assert set(np.unique(constants[weight.input[0]])) <= {-1.0, 1.0}
        assert constants[weight.input[1]].shape == () and constants[weight.input[1]] == 1
        assert next(a for a in conv.attribute if a.name == "kernel_shape").ints[0] in (1, 3)
        pad = producer[conv.input[0]]
        if pad.op_type == "Pad":
            assert constants[pad.input[2]] == -1
            pad = producer[pad.input[0]]
        assert pad.op_type == "BipolarQuant" and pad.domain == "qonnx.custom_op.general" and not pad.attribute
        scaled = readers[conv.output[0]]
        alpha = constants[scaled.input[1]]  # the constant stands second, where FINN looks
        assert scaled.op_type == "Mul" and alpha.shape == (1, len(alpha[0]), 1, 1) and (alpha >= 0).all()
        norm = readers[scaled.output[0]]
        assert norm.op_type == "BatchNormalization" and {a.name for a in norm.attribute} <= {"epsilon", "momentum"}
        assert readers[norm.output[0]].op_type in ("BipolarQuant", "Quant")
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["MatMul"] == 1 and not kinds["Gemm"] and not kinds["Clip"] and kinds["GlobalAveragePool"] == 1


def test_integers_have_rank_0_parameters_and_additions_one_scale(files: dict[str, Path]) -> None:
    graph = onnx.load(files["resnet.qonnx"]).graph
    constants = initializers(graph)
    producer = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type == "Quant":
            scale, zero, bits = (constants[name] for name in node.input[1:])
            assert scale.shape == zero.shape == bits.shape == () and zero == 0 and scale > 0 and bits in (4, 8)
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes["signed"] == 1 and attributes["rounding_mode"] == b"ROUND"
            assert attributes["narrow"] == (node.input[0] in constants)  # weights are symmetric
    sums = [n for n in graph.node if n.op_type == "Add" and not set(n.input) & set(constants)]
    assert len(sums) == 2
    for node in sums:
        operands = [producer[name] for name in node.input]
        assert all(o.op_type == "Quant" for o in operands)
        assert constants[operands[0].input[1]] == constants[operands[1].input[1]] == np.float32(0.125 * math.exp(0.1))


def test_finns_flavor_has_the_border_in_the_convolution(files: dict[str, Path]) -> None:
    ours, theirs = onnx.load(files["resnet.qonnx"]).graph, onnx.load(files["resnet.finn"]).graph
    assert not [n for n in theirs.node if n.op_type == "Pad"] and [n for n in ours.node if n.op_type == "Pad"]

    def pads(graph: onnx.GraphProto) -> dict[str, list[int]]:
        producer = {node.output[0]: node for node in graph.node}
        convs = [n for n in graph.node if n.op_type == "Conv" and producer[n.input[1]].op_type == "BipolarQuant"]
        return {n.name: list(next(a for a in n.attribute if a.name == "pads").ints) for n in convs}

    assert len(pads(theirs)) == 5 and set(pads(ours)) == set(pads(theirs))
    assert not any(any(sizes) for sizes in pads(ours).values())
    for name, sizes in pads(theirs).items():
        assert sizes == [0 if ".shortcut." in name else 1] * 4
    metadata = read_metadata(files["resnet.finn"])
    assert metadata["flavor"] == "finn" and "-1" in metadata["border"]


def test_finns_flavor_pools_behind_the_signs(files: dict[str, Path]) -> None:
    for flavor, source in (("qonnx", "Mul"), ("finn", "MultiThreshold")):
        graph = onnx.load(files[f"vgg.{flavor}"]).graph
        producer = {node.output[0]: node for node in graph.node}
        assert [producer[n.input[0]].op_type for n in graph.node if n.op_type == "MaxPool"] == [source] * 3


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    plain = to_onnx(small().eval(), tmp_path / "plain.onnx")
    with pytest.raises(ExportError, match="not a QONNX file of bnn_itrd"):
        inference_cost(plain)


def _pads_moved(model: Any) -> None:
    conv = next(node for node in nodes_of(model, "Conv") if any(attribute(node, "pads", (0,))))
    conv.attributes["pads"] = ir.AttrInt64s("pads", [2, 0, 0, 2])


def _pools_all(model: Any) -> None:
    """Stands for an error in a pass: it makes all BatchNorm factors positive, with which `pool_last` moves MaxPools."""
    for norm in nodes_of(model, "BatchNormalization"):
        gamma = norm.inputs[1].const_value.numpy()
        norm.replace_input_with(1, add_initializer(model, "gamma", np.abs(gamma)))


@pytest.mark.parametrize(("change", "name"), [(_pads_moved, "resnet"), (_pools_all, "vgg")])
def test_a_file_for_finn_that_computes_something_else_is_not_written(
    change: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passes that only FINN needs are checked too: an error in one is found before a file is written."""
    from bnn_itrd.export.fpga.finn import form

    merge = form.merge_padding

    def wrong(model: Any) -> int:
        count = merge(model)
        change(model)
        return count

    monkeypatch.setattr(form, "merge_padding", wrong)
    model = trained(small() if name == "resnet" else small_vgg())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[1] = -0.5
    file = tmp_path / "net.onnx"
    file.write_bytes(b"the old one")
    with pytest.raises(ExportError, match="nothing was written"):
        to_qonnx(model, file, flavor="finn")
    assert file.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"flavor": "brevitas"}, ValueError, "flavor must be one of qonnx, finn, got 'brevitas'"),
        ({"classes": ["a", "b"]}, ValueError, "classes must have one name per logit, got 2 names for 5 logits"),
        ({"classes": "abcde"}, ValueError, "classes must be a list of names"),
        ({"metadata": {"flavor": "mine"}}, ValueError, "metadata must not have an entry flavor"),
        ({"normalization": ([0.5], [0.5])}, ValueError, "mean must have 3 values"),
    ],
)
def test_arguments_of_to_qonnx(options: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"the old one")
    with pytest.raises(error, match=message):
        to_qonnx(small(), file, **options)
    assert file.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [file]


def test_a_graph_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bnn_itrd.export.fpga.qonnx_graph as qonnx_graph

    monkeypatch.setattr(qonnx_graph, "_positive", lambda signs, scale: (signs, np.abs(scale)))
    file = tmp_path / "net.onnx"
    file.write_bytes(b"the old one")
    with pytest.raises(ExportError, match="nothing was written"):
        to_qonnx(trained(small()), file)
    assert file.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [file]


def test_metadata_is_kept(tmp_path: Path) -> None:
    file = to_qonnx(
        small().eval(),
        tmp_path / "net.onnx",
        classes=list("abcde"),
        normalization=([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]),
        metadata={"dataset": "mine"},
    )
    metadata = read_metadata(file)
    assert metadata["classes"] == list("abcde") and metadata["std"] == [1.0, 2.0, 3.0]
    assert metadata["input_shape"] == list(SHAPE) and metadata["dataset"] == "mine" and metadata["flavor"] == "qonnx"
