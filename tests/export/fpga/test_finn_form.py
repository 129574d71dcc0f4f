"""The file for FINN: the shapes of its values, the images it takes, its thresholds, what stands in front of a pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch

from bnn_itrd import recipes
from bnn_itrd.config.parse import run_config
from bnn_itrd.export.fpga import qonnx_file, to_qonnx
from bnn_itrd.export.fpga.standard import to_standard
from bnn_itrd.runs.networks import build

SHAPE = (3, 32, 32)  # of the recipes' images


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ir.Model]:
    """The student of fpga-vgg_small as it begins, at the recipe's own size: the file, its graph in standard ONNX."""
    config = run_config("run", "", recipes.read("fpga-vgg_small"), [], extra={})[0]
    torch.manual_seed(0)
    model = build(config.network, config.scheme, num_classes=10, input_shape=SHAPE)
    graphs: list[Any] = []
    check = qonnx_file._check_graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qonnx_file, "_check_graph", lambda *args: (graphs.append(to_standard(args[1])), check(*args)))
        return to_qonnx(model, tmp_path_factory.mktemp("finn") / "vgg.onnx", flavor="finn"), graphs[0]


def test_the_shapes_in_a_graph_are_those_its_operations_give(recipe_file: tuple[Path, ir.Model]) -> None:
    """A pass that moves a node must not leave it with the shape of its old place."""
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
