"""The graph with which every export begins: its nodes and names; and the network stays as it was."""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from helpers.exported import images, randomised
from torch import nn

from bnn_itrd.export import canonical, traced_once
from bnn_itrd.export.graph import attribute, constant, nodes_of
from bnn_itrd.export.passes.batchnorm import fold_batchnorm
from bnn_itrd.models import observe
from bnn_itrd.quant import BinaryConv2d, BinaryLinear


@pytest.mark.compiles
def test_canonical_graph() -> None:
    torch.manual_seed(7)
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.Hardtanh(),
            BinaryConv2d(4, 6, 3, stride=2, padding=1, padding_value=-1, bias=True),
            nn.BatchNorm2d(6),
            nn.Flatten(),
            BinaryLinear(54, 5),
        )
    )
    graph = canonical(model, input_shape=(3, 8, 8))
    assert [f"{node.domain}::{node.op_type}" for node in graph.graph] == [
        "::Conv",
        "::BatchNormalization",
        "::Clip",
        "bnn_itrd::Sign",
        "bnn_itrd::BinaryConv2d",
        "::BatchNormalization",
        "::Reshape",
        "bnn_itrd::Sign",
        "bnn_itrd::BinaryLinear",
    ]
    conv = nodes_of(graph, "BinaryConv2d", "bnn_itrd")[0]
    binary = model[3].binary_weight()
    signs, scale, bias = (constant(conv.inputs[i]) for i in (1, 2, 4))
    assert signs is not None and scale is not None and bias is not None and conv.inputs[3] is None
    assert signs.dtype == np.int8
    np.testing.assert_array_equal(signs, binary.signs.detach().numpy())
    np.testing.assert_array_equal(scale, binary.scale.detach().numpy())
    np.testing.assert_array_equal(bias, model[3].bias.detach().numpy())
    assert {name: attribute(conv, name, None) for name in ("padding_value", "group", "path")} == {
        "padding_value": -1,
        "group": 1,
        "path": "3",
    }
    assert list(attribute(conv, "pads", ())) == [1, 1, 1, 1]
    assert list(attribute(conv, "strides", ())) == [2, 2]
    assert [node.metadata_props.get("path") for node in graph.graph][:4] == ["0", "1", "2", "3"]
    assert list(conv.outputs[0].shape or ())[1:] == [6, 3, 3]
    assert (graph.ir_version, graph.opset_imports) == (8, {"": 18, "bnn_itrd": 1})


def test_the_network_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(8)
    layers = (BinaryConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    model: Any = nn.Sequential(*layers).double()
    model.input_shape = (3, 8, 8)
    model.train()
    seen: list[Any] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    observed = observe(model)
    observed(images(4, (3, 8, 8)).double())  # leaves activations with a graph in the hooks
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    seen.clear()
    graph = canonical(observed)
    assert graph.graph.inputs[0].shape == ir.Shape(["batch", 3, 8, 8])
    assert not seen, "a foreign hook ran"
    assert model.training and model[0].weight.dtype == torch.float64 and model[0].weight.requires_grad
    assert isinstance(model[0], BinaryConv2d)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), state)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""


def test_foreign_network_without_input_shape() -> None:
    with pytest.raises(ValueError, match=r"Linear has no input_shape: pass input_shape=\(c, h, w\)"):
        canonical(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="the sizes of one image, each >= 1"):
        canonical(nn.Linear(3, 3), input_shape=(0,))


def test_a_network_is_traced_once_for_all_targets(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["bnn_itrd.export.tracing.trace"]  # the package has the function under this name
    traces = []
    trace = module._trace

    def counted(*arguments: Any) -> Any:
        traces.append(arguments)
        return trace(*arguments)

    monkeypatch.setattr(module, "_trace", counted)
    with traced_once():
        first, second = canonical(tiny), canonical(tiny)
        assert len(traces) == 1
        # Each caller's graph is its own: passes change it in place.
        fold_batchnorm(first)
        assert [n.op_type for n in second.graph] == [n.op_type for n in canonical(tiny).graph]
        assert [n.op_type for n in first.graph] != [n.op_type for n in second.graph]
        assert len(traces) == 1
    canonical(tiny)
    assert len(traces) == 2
