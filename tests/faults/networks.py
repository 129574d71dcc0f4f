"""Random networks of the operations of ours, and one whose chain has every kind of step."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import assume
from onnx import TensorProto, helper, numpy_helper

from bnn_itrd.export.ort.functions import function_bodies
from bnn_itrd.export.passes.chains import chain
from bnn_itrd.export.runtime.format import DOMAIN, FLOAT_CONVOLUTIONS, POOLINGS, SIGNS

__all__ = ["STEMS", "Network", "good_chain", "network"]


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


STEMS = tuple(op for op in FLOAT_CONVOLUTIONS if op.startswith("FloatConv"))


class Network:
    """A graph of operations of ours that grows at random; `sizes`: (h, w, c) of each value."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.floats: dict[str, tuple[int, int, int]] = {}
        self.signs: dict[str, tuple[int, int, int]] = {}
        self.inputs: dict[str, list[int]] = {}

    def one_of(self, options: Any) -> Any:
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def add(self, op: str, inputs: list[str], outputs: int, **attributes: Any) -> list[str]:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, f"n{len(self.nodes)}", domain=DOMAIN, **attributes))
        return names

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def window(self, size: tuple[int, int, int]) -> tuple[dict[str, Any], tuple[int, int]]:
        """Attributes of a window that fits, and the size of what it gives."""
        kernel, dilations = [self.one_of([1, 2, 3, 3]) for _ in "hw"], [self.one_of([1, 1, 2]) for _ in "hw"]
        pads = [int(p) for p in self.rng.integers(0, 3, 4)]
        spans = [dilations[i] * (kernel[i] - 1) + 1 for i in range(2)]
        for i in range(2):
            pads[i] += max(0, spans[i] - size[i] - pads[i] - pads[i + 2])
        strides = [self.one_of([1, 1, 2]) for _ in "hw"]
        out = [(size[i] + pads[i] + pads[i + 2] - spans[i]) // strides[i] + 1 for i in range(2)]
        attributes = {"input_size": list(size[:2]), "channels": size[2], "kernel_shape": kernel, "strides": strides}
        return attributes | {"pads": pads, "dilations": dilations}, (out[0], out[1])

    def limits(self, form: str) -> dict[str, float]:
        return {"low": -0.7, "high": float(self.rng.choice([0.0, 0.9]))} if "Clip" in form else {}

    def stem(self, op: str) -> None:
        size = (int(self.rng.integers(1, 13)), int(self.rng.integers(1, 13)), int(self.rng.integers(1, 5)))
        self.inputs["images"] = [size[2], *size[:2]]
        self.float_convolve(op, "images", size)

    def inner(self) -> None:
        x = self.one_of(self.floats)
        op = self.one_of(op for op in FLOAT_CONVOLUTIONS if op.startswith("Inner"))
        if self.floats[x][2] * 9 <= 128:
            self.float_convolve(op, x, self.floats[x])

    def float_convolve(self, op: str, x: str, size: tuple[int, int, int]) -> None:
        attributes, out = self.window(size)
        outputs = int(self.one_of([1, 7, 16, 24, 64, 80]))
        weights = self.rng.standard_normal((*attributes["kernel_shape"], size[2], outputs), np.float32)
        constants = [self.constant(weights), self.constant(self.rng.standard_normal(outputs, np.float32))]
        constants += self.further(op, outputs)
        made = self.add(op, [x, *constants], 1 + op.endswith("Sign"), **attributes, **self.limits(op))
        self.floats[made[0]] = (*out, outputs)
        self.signs.update(dict.fromkeys(made[1:], (*out, outputs)))

    def further(self, form: str, outputs: int) -> list[str]:
        """The constants of RPReLU and RSign."""
        count = 3 * ("RPReLU" in form) + form.endswith("RSign")
        return [self.constant(self.rng.standard_normal(outputs, np.float32)) for _ in range(count)]

    def sign(self) -> None:
        x = self.one_of(self.floats)
        op = self.one_of(SIGNS)
        self.signs[self.add(op, [x, *self.further(op, self.floats[x][2])], 1)[0]] = self.floats[x]

    def pool(self) -> None:
        x = self.one_of(self.floats)
        height, width, channels = self.floats[x]
        op = self.one_of(POOLINGS)
        kernel = [self.one_of([k for k in (1, 2, 4) if side % k == 0]) for side in (height, width)]
        zeros = [int(z) for z in self.rng.integers(0, 5, 2)] if op.endswith("Pad") else []
        more = {"zeros": zeros} if zeros else {}
        attributes = {"input_size": [height, width], "channels": channels, "kernel_shape": kernel}
        (y,) = self.add(op, [x], 1, **attributes, **more)
        self.floats[y] = (height // kernel[0], width // kernel[1], channels + sum(zeros))

    def convolve(self, *, last: bool = False) -> None:
        x = self.one_of(self.signs)
        size = self.signs[x]
        attributes, out = self.window(size)
        residuals = [name for name, s in self.floats.items() if s[:2] == out]
        forms = [f"{bend}{sign}" for bend in ("", "Clip", "RPReLU") for sign in ("", *SIGNS)]
        form = self.one_of(forms + ([] if last else ["Threshold"] * 4))
        residual = self.one_of(residuals) if residuals and form != "Threshold" and self.rng.random() < 0.7 else None
        outputs = self.floats[residual][2] if residual else int(self.one_of([1, 7, 16, 24, 64]))
        group = self.one_of([g for g in (1, 1, 2, 3) if size[2] % g == 0 and outputs % g == 0])
        op = f"{'Grouped' if group > 1 else ''}BinaryConv{'Add' if residual else ''}{form}"
        kernel, channels = attributes["kernel_shape"], size[2] // group
        bits = self.rng.integers(0, 2, (*kernel, channels, outputs)).astype(np.uint8)
        arrays = [np.packbits(bits, axis=2, bitorder="little")]
        if form == "Threshold":
            arrays.append(self.rng.integers(-4, 5, outputs).astype(np.int32))
        else:
            arrays += list(self.rng.standard_normal((2, outputs), np.float32))
        inputs = [x, *(self.constant(a) for a in arrays), *([residual] if residual else [])]
        inputs += self.further(form, outputs)
        more = {"group": group, "padding_value": int(self.rng.integers(-1, 2)), **self.limits(form)}
        made = self.add(op, inputs, 2 if form.endswith("Sign") else 1, **attributes, **more)
        if form != "Threshold":
            self.floats[made[0]] = (*out, outputs)
        self.signs.update(dict.fromkeys(made if form == "Threshold" else made[1:], (*out, outputs)))

    def model(self, *, chained: bool) -> onnx.ModelProto:
        last = self.nodes[-1]
        size = self.floats[last.output[0]]
        outputs = [value(last.output[0], list(size))]
        outputs += [value(t, list(size), TensorProto.UINT8) for t in last.output[1:]]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [value(name, shape) for name, shape in self.inputs.items()],
            outputs,
            [numpy_helper.from_array(a, name) for name, a in self.constants.items()],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
        bodies = function_bodies(node.op_type for node in self.nodes if node.domain == DOMAIN)
        model = helper.make_model(graph, opset_imports=opsets, functions=bodies, ir_version=8)
        if chained:
            assume(chain(model) == 1)  # not where a sign nobody reads is all that reads an input
        return model

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        return {name: self.rng.standard_normal((batch, *shape), np.float32) for name, shape in self.inputs.items()}


def network(seed: int, *, steps: int = 6) -> Network:
    """Operations that read images, floats and signs from outside."""
    net = Network(seed)
    size = (net.one_of([1, 2, 4, 8, 8, 12]), net.one_of([2, 4, 8, 8]), net.one_of([1, 3, 8, 16, 33, 64]))
    if net.rng.random() < 0.3:
        # Signs from outside: an operation of another domain stands between, so no operation of the chain makes them.
        net.inputs["outside"] = list(size)
        sign = helper.make_node("Sign", ["outside"], ["outside_signs"], "outside_sign", domain=DOMAIN)
        net.nodes += [sign, helper.make_node("Identity", ["outside_signs"], ["kept_signs"], "between")]
        net.signs["kept_signs"] = size
    if net.rng.random() < 0.6:
        net.stem(net.one_of(STEMS))
    if not net.floats or net.rng.random() < 0.4:
        net.inputs["x"] = list(size)
        net.floats["x"] = size
    for _ in range(int(net.rng.integers(1, steps + 1))):
        options = [net.sign, net.pool, net.inner, *([net.convolve] * 4 if net.signs else [])]
        net.one_of(options)()
    if not net.signs:
        net.sign()
    net.convolve(last=True)
    return net


def good_chain() -> Network:
    net = Network(3)
    net.inputs["images"] = [3, 8, 8]
    weights = [net.rng.standard_normal((3, 3, 3, 16), np.float32), net.rng.standard_normal(16, np.float32)]
    window = {"strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1], "kernel_shape": [3, 3], "input_size": [8, 8]}
    names = [net.constant(a) for a in weights]
    y, t = net.add("FloatConvSign", ["images", *names], 2, channels=3, **window)
    packed = net.rng.integers(0, 256, (3, 3, 2, 16)).astype(np.uint8)
    first = [t, net.constant(packed), net.constant(net.rng.integers(-9, 9, 16).astype(np.int32))]
    binary: dict[str, Any] = {"channels": 16, "group": 1, "padding_value": 0, **window}
    (s,) = net.add("BinaryConvThreshold", first, 1, **binary)
    scale, bias = net.rng.standard_normal((2, 16), np.float32)
    second = [s, net.constant(packed), net.constant(scale), net.constant(bias), y]
    z, _ = net.add("BinaryConvAddClipSign", second, 2, low=-1.0, high=1.0, **binary)
    (p,) = net.add("AveragePool", [z], 1, input_size=[8, 8], channels=16, kernel_shape=[2, 2])
    net.floats[p] = (4, 4, 16)
    return net
