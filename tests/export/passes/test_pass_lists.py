"""Each target's writer applies its list of passes in order; each pass says how often it changed the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn

from bnn_itrd.export import canonical, passes, to_onnx, traced_once
from bnn_itrd.export.fpga import check_fpga, to_qonnx
from bnn_itrd.export.lce.translate import translate
from bnn_itrd.quant import BinaryConv2d

SHAPE = (3, 8, 8)


@functools.cache
def network() -> nn.Module:
    """No test changes it."""
    torch.manual_seed(0)
    return nn.Sequential(
        BinaryConv2d(3, 4, 3, padding=1, padding_value=-1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 5)
    ).eval()


@pytest.fixture(scope="module", autouse=True)
def _traced_once() -> Iterator[None]:
    """One trace of the network serves every writer."""
    with traced_once():
        yield


WRITERS: dict[str, list[Callable[[Path], Any]]] = {
    "ONNX": [lambda folder: to_onnx(network(), folder / "net.onnx", input_shape=SHAPE)],
    "PORTABLE": [lambda folder: to_onnx(network(), folder / "net.onnx", input_shape=SHAPE, functions=False)],
    "UNPACKED": [
        lambda folder: to_onnx(network(), folder / "net.onnx", input_shape=SHAPE, functions=False, packed=False)
    ],
    "LCE": [lambda folder: translate(canonical(network(), input_shape=SHAPE))],
    "QONNX": [
        lambda folder: to_qonnx(network(), folder / "net.onnx", input_shape=SHAPE),
        lambda folder: to_qonnx(network(), folder / "net.onnx", input_shape=SHAPE, flavor="finn"),
        lambda folder: check_fpga(network(), input_shape=SHAPE),
    ],
}


@pytest.mark.parametrize("target", WRITERS)
def test_a_target_applies_its_list_in_order_and_no_other_pass(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[passes.Pass] = []

    def noting(step: passes.Pass) -> passes.Pass:
        def noted(model: ir.Model) -> int:
            applied.append(step)
            return step(model)

        return noted

    lists = {name: getattr(passes, name) for name in WRITERS}
    for name, steps in lists.items():
        monkeypatch.setattr(passes, name, tuple(noting(step) for step in steps))
    for write in WRITERS[target]:
        applied.clear()
        write(tmp_path)
        assert tuple(applied) == lists[target]


def changes(model: nn.Module, steps: Sequence[passes.Pass]) -> dict[str, int]:
    """Returns how often each pass changed the model's graph, by the name of the pass, without those that did not."""
    graph = canonical(model, input_shape=SHAPE)
    counts = {step.__name__: step(graph) for step in steps}
    return {name: count for name, count in counts.items() if count}


def test_every_pass_says_how_often_it_changed_the_graph() -> None:
    assert changes(network(), passes.UNPACKED) == {"fold_batchnorm": 1, "lower_binary": 2}
    assert changes(network()[:2], passes.ONNX) == {"fold_batchnorm": 1, "channels_last": 1}
