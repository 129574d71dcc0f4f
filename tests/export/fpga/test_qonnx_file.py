"""Students an FPGA can hold, what FINN can map of a network, and QONNX files executed by qonnx itself."""

from __future__ import annotations

import copy
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from bnn_itrd import recipes
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.deploy.agreement import compare_split
from bnn_itrd.deploy.targets import TARGETS, judge, open_file
from bnn_itrd.errors import UserError
from bnn_itrd.export import ExportError, canonical, predict_model, read_metadata, to_onnx, validate
from bnn_itrd.export.fpga import (
    QonnxAgreement,
    check_fpga,
    compare_values,
    inference_cost,
    qonnx_values,
    run_qonnx,
    to_qonnx,
    validate_qonnx,
)
from bnn_itrd.export.graph import add_initializer, attribute, nodes_of
from bnn_itrd.export.lce import to_lce
from bnn_itrd.export.runtimes import environments
from bnn_itrd.export.tracing.batch_check import refuse_mixing
from bnn_itrd.models import ResNet, observe, resnet18, resnet20, summary, vgg_small
from bnn_itrd.models.blocks import Style
from bnn_itrd.quant import (
    BinaryConv2d,
    BinaryLinear,
    BinaryWeight,
    IntegerConv2d,
    IntegerLinear,
    IntegerQuantizer,
    Scheme,
    WeightBinarizer,
    WeightQuantizer,
    integer_quantize,
    sign,
)
from bnn_itrd.runs.networks import build
from bnn_itrd.training.step.objective import Objective

READY: dict[str, Any] = {"binary": "recu", "padding_value": -1, "residual_bits": 4, "first_last_bits": 8}
SHAPE = (3, 8, 8)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def qonnx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of qonnx's environment: the user's, else one made for this run."""
    found = environments.find("fpga")
    if found is not None:
        yield found
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield environments.setup("fpga")


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trained(model: Any, seed: int = 0) -> Any:
    """Statistics, scales and steps as training might leave them: some alphas negative."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.3, generator=generator)
            if isinstance(module, BinaryConv2d) and hasattr(module.weight_binarizer, "alpha"):
                module.weight_binarizer.alpha.normal_(generator=generator)
            if isinstance(module, IntegerQuantizer):
                module.log_gain.fill_(0.1)
    return model.eval()


def small(*, classes: int = 5, **options: Any) -> ResNet:
    """Two stages of one block each: every kind of node a ready ResNet has, and quick to trace."""
    torch.manual_seed(0)
    style = Style(
        scheme=Scheme("recu", "recu"),
        shortcut=options.pop("shortcut", "binary"),
        per_conv=options.pop("per_conv", False),
        float_downsample=False,
        **{"padding_value": -1, "residual_bits": 4, "first_last_bits": 8} | options,
    )
    return ResNet(
        (4, 8), (1, 1), num_classes=classes, input_shape=SHAPE, style=style, stem_activation=False, norm_head=True
    )


# ---- integers: values, gradients, state


def test_integers_against_a_loop() -> None:
    x = torch.cat([rand(500) * 3, torch.arange(-40, 40) / 8])  # the second half: ties and both ends
    for bits, narrow in ((2, False), (4, False), (4, True), (8, False)):
        high = 2 ** (bits - 1) - 1
        low = -high if narrow else -high - 1
        got = integer_quantize(x, torch.tensor(0.25), bits=bits, narrow=narrow)
        want = [0.25 * max(low, min(high, round(v / 0.25))) for v in x.tolist()]  # round: ties to even
        assert got.tolist() == want
    assert integer_quantize(x.bfloat16(), torch.tensor(0.5), bits=4).dtype == torch.bfloat16
    assert integer_quantize(torch.tensor([math.nan]), torch.tensor(0.5), bits=4).isnan().all()


def test_the_gradients_are_those_of_the_stated_surrogate() -> None:
    """By finite differences in float64, away from the kinks: the clamp for x, the frozen rounding for the scale."""
    scale, step = 0.3, 1e-6
    x = rand(200, dtype=torch.float64) * 2
    x = x[((x / scale - 7).abs() > 1e-3) & ((x / scale + 8).abs() > 1e-3)]
    weights = rand(len(x), seed=1, dtype=torch.float64)
    a, s = x.clone().requires_grad_(), torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    (integer_quantize(a, s, bits=4) * weights).sum().backward()

    def clamped(v: Tensor) -> Tensor:
        return v.clamp(-8 * scale, 7 * scale)

    rounding = (x / scale).clamp(-8, 7).round() - (x / scale).clamp(-8, 7)

    def by_scale(size: float) -> float:
        return float((((x / size).clamp(-8, 7) + rounding) * size * weights).sum())

    assert a.grad is not None and s.grad is not None
    torch.testing.assert_close(
        a.grad, weights * (clamped(x + step) - clamped(x - step)) / (2 * step), rtol=1e-6, atol=1e-6
    )
    numeric = (by_scale(scale + step) - by_scale(scale - step)) / (2 * step)
    assert float(s.grad) == pytest.approx(numeric, rel=1e-6)
    assert (a.grad == 0).any() and (a.grad != 0).any()


def test_the_scales_gradient_is_damped_as_lsq_has_it() -> None:
    quantizer, x = IntegerQuantizer(4), rand(3, 5, 2)
    quantizer(x).sum().backward()
    scale = quantizer.scale().detach().requires_grad_()
    integer_quantize(x, scale, bits=4).sum().backward()
    assert quantizer.log_gain.grad is not None and scale.grad is not None
    # d scale / d log_gain is the scale itself.
    expected = float(scale.grad * scale.detach()) / math.sqrt(10 * 7)
    assert float(quantizer.log_gain.grad) == pytest.approx(expected, rel=1e-5)


def test_a_quantiser_starts_at_hardtanhs_range_and_stays_positive() -> None:
    quantizer = IntegerQuantizer(4)
    y = quantizer(torch.tensor([-5.0, 5.0, 0.0, 0.06]))
    assert y.tolist() == [-1.0, 0.875, 0.0, 0.0]
    with torch.no_grad():
        quantizer.log_gain.fill_(-20.0)
    assert float(quantizer.scale().detach()) > 0


def test_train_equals_eval_and_the_state_is_saved() -> None:
    quantizer, x = IntegerQuantizer(4, bound=2.0), rand(4, 6)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    quantizer(x).square().sum().backward()
    optimizer.step()
    assert float(quantizer.log_gain.detach()) != 0
    assert torch.equal(quantizer.train()(x), quantizer.eval()(x))
    other = IntegerQuantizer(4, bound=2.0)
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x), quantizer(x)) and list(quantizer.state_dict()) == ["log_gain"]


def test_weights_reach_their_highest_integer() -> None:
    weight = rand(3, 4, 3, 3).requires_grad_()
    quantizer = WeightQuantizer(8)
    y = quantizer(weight)
    levels = y / quantizer.scale(weight)
    assert float(levels.abs().max().detach()) == pytest.approx(127)
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    y.backward(torch.ones_like(y))
    assert torch.equal(weight.grad, torch.ones_like(weight))  # type: ignore[arg-type]
    assert not quantizer(torch.zeros(2, 2)).any() and not list(quantizer.state_dict())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: integer_quantize(torch.zeros(1), torch.ones(()), bits=1), r"bits must be in \[2, 16\], got 1"),
        (lambda: IntegerQuantizer(17), r"bits must be in \[2, 16\], got 17"),
        (lambda: IntegerQuantizer(4, bound=0), "bound must be > 0, got 0"),
        (lambda: resnet18(residual_bits=4), "residual_bits=4 needs a binary network"),
        (lambda: vgg_small(first_last_bits=8), "first_last_bits=8 needs a binary network"),
        (lambda: vgg_small(norm_before_pool=True), "norm_before_pool=True needs a binary network"),
        (lambda: resnet18(binary="recu", residual_bits=9), r"residual_bits must be in \[2, 8\], got 9"),
        (lambda: resnet18(shortcut="binary"), "shortcut='binary' needs a binary network"),
        (lambda: NetworkConfig(first_last_bits=1), r"network.first_last_bits must be in \[2, 8\], got 1"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises((ValueError, UserError), match=message):
        make()


def test_an_integer_convolution_is_one_of_whole_numbers() -> None:
    conv, x = IntegerConv2d(3, 4, 3, 2, 1, bits=8, bound=4.0), rand(2, 3, 6, 6)
    a = (x.double() / (4 / 128)).round().clamp(-128, 127)
    size = conv.weight.detach().abs().max().double() / 127
    w = (conv.weight.detach().double() / size).round()
    want = F.conv2d(a, w, stride=2, padding=1) * (4 / 128) * size
    torch.testing.assert_close(conv(x).detach().double(), want, rtol=1e-5, atol=1e-5)


def test_the_folded_norm_is_the_norm() -> None:
    """In evaluation a linear layer of whole numbers; in training the same, were the batch's statistics the running."""
    torch.manual_seed(0)
    layer, x = IntegerLinear(6, 3, normalise=True), rand(16, 6) * 0.4 + 0.1
    assert layer.norm is not None
    quantised = layer.input_quantizer(x).detach()
    layer.norm.running_mean, layer.norm.running_var = quantised.mean(0), quantised.var(0, correction=0)
    evaluated = layer.eval()(x)
    factor = (layer.norm.running_var + layer.norm.eps).rsqrt()
    size = (layer.weight * factor).abs().max() / 127
    weight = (layer.weight * factor / size).round() * size
    want = (quantised - layer.norm.running_mean) @ weight.T + layer.bias
    torch.testing.assert_close(evaluated, want)
    layer.norm.momentum = 0.0
    torch.testing.assert_close(layer.train()(x), evaluated, rtol=1e-4, atol=1e-5)


# ---- networks


def test_every_operand_of_every_addition_has_one_scale() -> None:
    model = trained(small())
    quantizers = [m for m in model.modules() if isinstance(m, IntegerQuantizer) and m.bits == 4]
    assert len(quantizers) == 1 + 2 * 2 + 1  # stem; operand and sum per block; the strided block's shortcut
    assert len({id(q.log_gain) for q in quantizers}) == 1
    scale, seen = float(quantizers[0].scale().detach()), []
    for quantizer in quantizers:
        quantizer.register_forward_hook(lambda m, x, y: seen.append(y.detach() / scale))
    model(rand(2, *SHAPE) * 2)
    assert len(seen) == len(quantizers)
    for levels in seen:
        assert torch.allclose(levels, levels.round(), atol=1e-4)
        assert float(levels.min()) >= -8.01 and float(levels.max()) <= 7.01


def test_tied_quantisers_stay_tied() -> None:
    model = small()
    for twin in (copy.deepcopy(model), model):
        twin(rand(4, *SHAPE)).square().sum().backward()
        torch.optim.SGD(twin.parameters(), lr=0.5).step()
        scales = {float(m.scale().detach()) for m in twin.modules() if isinstance(m, IntegerQuantizer) and m.bits == 4}
        assert len(scales) == 1 and scales != {0.125}
    names = [name for name, _ in model.named_parameters() if name.endswith("log_gain")]
    assert names == ["conv1.input_quantizer.log_gain", "act1.log_gain", "linear.input_quantizer.log_gain"]


def test_the_block_is_its_formula() -> None:
    block = trained(small()).layer2[0]
    x = 0.125 * math.exp(0.1) * rand(2, 4, 6, 6).mul(4).round().clamp(-8, 7)
    size = 0.125 * math.exp(0.1)

    def integers(v: Tensor) -> Tensor:
        return (v / size).round().clamp(-8, 7) * size

    main = block.bn2(block.conv2(block.bn1(block.conv1(x))))
    conv, norm = block.shortcut[0]
    assert conv.kernel_size == (1, 1) and conv.stride == (2, 2)
    want = integers(integers(main) + integers(norm(conv(x))))
    torch.testing.assert_close(block(x), want)


@pytest.mark.compiles
@pytest.mark.parametrize("per_conv", [False, True])
def test_a_ready_network_compiles_whole(per_conv: bool) -> None:
    torch._dynamo.reset()
    model, x = small(per_conv=per_conv), rand(4, *SHAPE)
    twin = copy.deepcopy(model)
    compiled = torch.compile(observe(model), fullgraph=True, backend="aot_eager")
    for module, step in ((model, lambda: compiled(x).logits), (twin, lambda: twin(x))):
        step().square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)


def test_nothing_syncs_with_the_host() -> None:
    """A meta tensor has no values: .item(), a branch on a value or a copy to the host would raise."""
    model = small().to("meta")
    model.train()(torch.empty(2, *SHAPE, device="meta")).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.eval()(torch.empty(2, *SHAPE, device="meta")).shape == (2, 5)


def test_parameters_and_bits_of_the_ready_networks() -> None:
    ready = summary(resnet18(**READY))
    # ReCU's 11,005,002, without BatchNorm1d (2 x 512), with three 1x1 convolutions, their alphas and BatchNorms,
    # and the scales of the images, of the stream and in front of the classifier
    shortcuts = sum(2 * n * n + 3 * n * 2 for n in (64, 128, 256))
    assert ready.parameters == 11_005_002 - 1024 + shortcuts + 3
    layers = {layer.path: layer for layer in ready.layers}
    assert (layers["conv1"].weight_bits, layers["conv1"].activation_bits) == (8, 8)
    assert layers["conv1"].bytes == 3 * 64 * 9 + 8 and layers["linear"].bytes == 5120 + 4 * 10 + 8
    assert (layers["act1"].activation_bits, layers["act1"].parameters) == (4, 1)
    assert ready.integer_macs == 3 * 64 * 9 * 1024 + 5120 and ready.float_macs == 0 and ready.kept_float == ()
    assert sum(layer.parameters for layer in ready.layers) == ready.parameters
    assert "integer MACs" in str(ready) and "integer MACs" not in str(summary(small(first_last_bits=None)))
    vgg = vgg_small(binary="recu", padding_value=-1, first_last_bits=8)
    assert sum(p.numel() for p in vgg.parameters()) == 4_660_106 + 128 + 256 + 256 + 512 + 512 + 2


def test_the_shortcut_is_binary_unless_named() -> None:
    model = resnet18(binary="recu", residual_bits=4, width=0.125)
    assert isinstance(model.layer2[0].shortcut[0][0], BinaryConv2d)
    pooled = resnet20(binary="recu", residual_bits=4, shortcut="avgpool")
    assert not any(isinstance(m, BinaryConv2d) for m in pooled.layer2[0].shortcut.modules())
    assert pooled.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("name", ["fpga-resnet18", "fpga-vgg_small"])
def test_the_recipes_build_what_maps_and_train(name: str) -> None:
    config = run_config("run", "", recipes.read(name), [], extra={})[0]
    assert config.data.name == "cifar10"
    torch.manual_seed(0)
    shape = (3, 16, 16)
    model = build(config.network, config.scheme, num_classes=10, input_shape=shape)
    teacher = build(config.network, None, num_classes=10, input_shape=shape)
    assert not any(isinstance(m, (IntegerQuantizer, BinaryConv2d)) for m in teacher.modules())
    objective = Objective(model, None, nn.ModuleDict(), ce_weight=1.0, label_smoothing=0.0)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.05, momentum=config.train.momentum)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(2):
        loss, _, _ = objective(rand(8, *shape, seed=step), torch.arange(8), torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert bool(loss.isfinite())
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_vgg_refuses_what_only_residual_networks_have() -> None:
    with pytest.raises(UserError, match=r"network\.residual_bits is not an option of vgg_small"):
        build(NetworkConfig(name="vgg_small", residual_bits=4), SchemeConfig(), num_classes=10, input_shape=(3, 32, 32))


# ---- plain ONNX


@pytest.mark.parametrize("functions", [True, False])
def test_a_ready_network_is_a_plain_onnx_file_too(functions: bool, tmp_path: Path) -> None:
    model = trained(small(per_conv=True))
    assert len(nodes_of(canonical(model), "Quant", "bnn_itrd")) == 1 + 2 * 4 + 1 + 4
    file = to_onnx(model, tmp_path / "ready.onnx", functions=functions)
    result = validate(model, file, rand(40, *SHAPE))
    assert result.argmax_agreement >= 0.95 and result.median_difference < 1e-5


# ---- QONNX: what is in the file


def initializers(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def small_vgg(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return vgg_small(4, binary="recu", padding_value=-1, input_shape=SHAPE, **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small ready ResNet and a small VGG, as both flavors."""
    folder = tmp_path_factory.mktemp("fpga")
    vgg = trained(small_vgg(first_last_bits=8))
    made = {}
    for name, model in (("resnet", trained(small())), ("vgg", vgg)):
        for flavor in ("qonnx", "finn"):
            made[f"{name}.{flavor}"] = to_qonnx(model, folder / f"{name}.{flavor}.onnx", flavor=flavor)
    return made


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


# ---- QONNX: what qonnx makes of it


def assert_agrees(result: QonnxAgreement, *, median: float = 1e-4) -> None:
    """99 % of the images in the same class, one image allowed."""
    found = result.agreement
    assert len(found.disagreements) <= max(1, 0.01 * found.images) and found.median_difference <= median


def test_qonnx_gives_what_the_network_gives(files: dict[str, Path], qonnx: Path) -> None:
    vgg = trained(small_vgg(first_last_bits=8))
    for name, model in (("resnet", trained(small())), ("vgg", vgg)):
        x = rand(50, *SHAPE)
        result = validate_qonnx(model, files[f"{name}.qonnx"], x, python=qonnx)
        assert_agrees(result)
        assert all(outlier.layer and outlier.differing for outlier in result.outliers)


def test_every_sign_and_integer_on_the_way(files: dict[str, Path], qonnx: Path) -> None:
    x = rand(3, *SHAPE)
    values = qonnx_values(files["resnet.qonnx"], x, python=qonnx, batch_size=2)
    assert [path for path, _ in values.levels][:3] == ["conv1.input_quantizer", "act1", "layer1.0.conv1"]
    assert len(values.levels) == 5 + 6 + 2
    levels = dict(values.levels)
    assert set(np.unique(levels["layer1.0.conv1"])) == {-1, 1}
    stem = np.rint(x.numpy() / np.float32(4 / 128 * math.exp(0.1))).clip(-128, 127)
    assert (levels["conv1.input_quantizer"] == stem).mean() > 0.999
    # In another batch size onnxruntime may round otherwise.
    np.testing.assert_allclose(values.logits, run_qonnx(files["resnet.qonnx"], x, python=qonnx), atol=1e-5)


def test_an_outlier_names_its_first_layer(files: dict[str, Path], qonnx: Path) -> None:
    """The network is changed in its second layer: that is where the file's signs part from it."""
    model = trained(small())
    with torch.no_grad():
        model.layer1[0].bn1.bias += 0.5
    result = validate_qonnx(model, files["resnet.qonnx"], rand(6, *SHAPE), python=qonnx)
    assert len(result.outliers) >= 4
    assert {outlier.layer for outlier in result.outliers} == {"layer1.0.conv2"}
    sizes = [outlier.difference for outlier in result.outliers]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1e-4


class Offset(WeightBinarizer):
    def forward(self, weight: Tensor) -> BinaryWeight:
        return BinaryWeight(sign(weight), torch.linspace(-1, 1, len(weight)), torch.linspace(0.1, 0.3, len(weight)))


class Mixed(nn.Module):
    """Offsets, biases, groups, a border of +1, a binary linear layer, a mean that drops its axes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.a = BinaryConv2d(8, 8, 3, padding=1, groups=2, bias=True, padding_value=1)
        self.b = BinaryConv2d(8, 12, 3, padding=(0, 1), scheme="xnor")
        self.b.weight_binarizer = Offset(12)
        self.c = BinaryLinear(12, 6, bias=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardtanh(self.b(self.a(self.stem(x))))
        return self.head(self.c(y.mean((2, 3)) - 0.1))


def test_networks_of_other_kinds(tmp_path: Path, qonnx: Path) -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    file = to_qonnx(model, tmp_path / "mixed.onnx", input_shape=(3, 12, 12))
    result = validate_qonnx(model, file, rand(20, 3, 12, 12), python=qonnx)
    assert_agrees(result, median=1e-5)
    with pytest.raises(ExportError, match=r"a pads with 1.*padding_value=-1"):
        to_qonnx(model, tmp_path / "mixed.onnx", input_shape=(3, 12, 12), flavor="finn")
    assert validate_qonnx(model, file, rand(3, 3, 12, 12), python=qonnx).agreement.images == 3  # the old file stands


@pytest.mark.parametrize(
    ("make", "bops", "bits"),
    [
        (lambda: resnet18(binary="recu"), 2.36e9, 11.2e6),
        (lambda: vgg_small(binary="recu", padding_value=-1, first_last_bits=8), 0.83e9, 5.25e6),
    ],
    ids=["resnet18", "vgg_small"],
)
def test_the_published_costs(make: Any, bops: float, bits: float, tmp_path: Path, qonnx: Path) -> None:
    cost = inference_cost(to_qonnx(make(), tmp_path / "net.onnx"), python=qonnx)
    assert cost["total_bops"] == pytest.approx(bops, rel=0.008)
    assert cost["total_mem_w_bits"] == pytest.approx(bits, rel=0.002)
    assert all(isinstance(value, float) for value in cost.values())


# ---- refusals


def test_a_file_for_finn_is_executed_with_its_borders_put_back(files: dict[str, Path], qonnx: Path) -> None:
    """Its pads stand for -1; a pooling stands behind its quantiser, where the network has it in front."""
    vgg = trained(small_vgg(first_last_bits=8))
    x = rand(40, *SHAPE)
    for name, model in (("resnet", trained(small())), ("vgg", vgg)):
        before = files[f"{name}.finn"].read_bytes()
        result = validate_qonnx(model, files[f"{name}.finn"], x, python=qonnx)
        assert_agrees(result)
        np.testing.assert_allclose(
            run_qonnx(files[f"{name}.finn"], x, python=qonnx),
            run_qonnx(files[f"{name}.qonnx"], x, python=qonnx),
            atol=1e-5,
        )
        assert files[f"{name}.finn"].read_bytes() == before
        ours, theirs = (qonnx_values(files[f"{name}.{f}"], x[:3], python=qonnx).levels for f in ("qonnx", "finn"))
        assert [path for path, _ in ours] == [path for path, _ in theirs]
        for (path, a), (_, b) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=path)


class _Few:
    """Six images in chunks as a data set gives them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def eval_batches(self, size: int, *, device: torch.device) -> Iterator[tuple[Tensor, Tensor, None]]:
        for part in self.images.split(4):
            yield part, torch.zeros(len(part), dtype=torch.int64), None


@pytest.mark.parametrize("flavor", ["qonnx", "finn"])
def test_one_execution_gives_agreement_and_outliers(
    flavor: str, files: dict[str, Path], qonnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"student.{flavor}.onnx"
    file.write_bytes(files[f"resnet.{flavor}"].read_bytes())
    x = rand(6, *SHAPE)
    data: Any = SimpleNamespace(name="few", input_shape=SHAPE, test=_Few(x))
    model = trained(small())
    with torch.no_grad():
        model.layer1[0].bn1.bias += 0.5
    executed = []
    call = environments.call

    def counted(*args: Any, arrays: Any, **more: Any) -> Any:
        executed.append(len(arrays["images"]))
        return call(*args, arrays=arrays, **more)

    monkeypatch.setattr(environments, "call", counted)
    found = compare_split(model, open_file(file, python=str(qonnx)), data)
    assert executed == [4, 2]
    monkeypatch.undo()
    np.testing.assert_allclose(found.theirs, predict_model(model, x), atol=1e-5)
    np.testing.assert_allclose(found.ours, run_qonnx(file, x, python=qonnx), atol=1e-5)
    expected = validate_qonnx(model, file, x, python=qonnx).outliers
    assert found.outliers is not None and len(found.outliers) >= 4
    assert [(o.image, o.layer, o.differing) for o in found.outliers] == [
        (o.image, o.layer, o.differing) for o in expected
    ]
    limited = compare_split(model, open_file(file, python=str(qonnx)), data, limit=5)
    assert len(limited.labels) == len(limited.ours) == 5


@pytest.mark.parametrize(
    ("name", "agreement", "images", "median", "least", "reason"),
    [
        ("onnx", 100.0, 10, 0.0, None, None),
        ("onnx", 98.0, 50, 0.0, None, None),  # one image of 50
        ("onnx", 96.0, 50, 0.0, None, "agreement 96.000 % is below 99.9 %"),  # two
        ("qonnx", 99.5, 200, 1e-6, None, None),
        ("qonnx", 99.0, 200, 1e-6, None, "below 99.9 %"),
        ("qonnx", 100.0, 200, 1.1e-4, None, "median difference 0.00011 is above 0.0001"),
        ("finn", 100.0, 200, math.nan, None, "median difference nan"),
        ("lce", 99.0, 10_000, 1e-6, None, None),
        ("lce", 98.99, 10_000, 1e-6, None, "below 99.0 %"),
        ("lce", 99.5, 200, 1e-6, 99.9, None),
        ("lce", 99.5, 200, 1e-6, 100.0, "below 100.0 %"),  # who asks for all means all
        ("onnx", 100.0, 10, 5.0, None, None),
        ("onnx", math.nan, 10, 0.0, None, "agreement nan"),
        ("onnx", 0.0, 1, 0.0, None, None),
    ],
)
def test_what_validate_lets_pass(
    name: str, agreement: float, images: int, median: float, least: float | None, reason: str | None
) -> None:
    found = judge(TARGETS[name], agreement, images, median, min_agreement=least)
    assert found is None if reason is None else found is not None and reason in found


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    plain = to_onnx(small().eval(), tmp_path / "plain.onnx")
    with pytest.raises(ExportError, match="not a QONNX file of bnn_itrd"):
        inference_cost(plain)


def _pads_moved(model: Any) -> None:
    conv = next(node for node in nodes_of(model, "Conv") if any(attribute(node, "pads", (0,))))
    conv.attributes["pads"] = ir.AttrInt64s("pads", [2, 0, 0, 2])


def _pools_all(model: Any) -> None:
    """Past the check of `pool_last`: a MaxPool moved behind a BatchNorm whose factors are not all positive."""
    for norm in nodes_of(model, "BatchNormalization"):
        gamma = norm.inputs[1].const_value.numpy()
        norm.replace_input_with(1, add_initializer(model, "gamma", np.abs(gamma)))


@pytest.mark.parametrize(("change", "name"), [(_pads_moved, "resnet"), (_pools_all, "vgg")])
def test_a_file_for_finn_that_computes_something_else_is_not_written(
    change: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done for FINN alone is checked too: an error in it is found before the file is there."""
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


def test_values_that_were_executed_already(files: dict[str, Path], qonnx: Path) -> None:
    """A comparison of values that were executed already is the one that executes them."""
    model, x = trained(small()), rand(6, *SHAPE)
    with torch.no_grad():
        model.layer1[0].bn1.bias += 0.5
    values = qonnx_values(files["resnet.qonnx"], x, python=qonnx)
    again = compare_values(model, values, predict_model(model, x, batch_size=32), x)
    assert again == validate_qonnx(model, files["resnet.qonnx"], x, python=qonnx)


def test_without_an_environment(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ExportError, match="validate --setup fpga"):
        run_qonnx(files["resnet.qonnx"], rand(1, *SHAPE))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.zeros(2, 3, 9, 8), {}, r"images must be \(n, 3, 8, 8\) for this file, got \(2, 3, 9, 8\)"),
        (torch.zeros(0, *SHAPE), {}, "images must be"),
        (torch.zeros(1, *SHAPE, dtype=torch.uint8), {}, "images must be float32, normalised, got uint8"),
        (torch.zeros(1, *SHAPE), {"batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_images_that_do_not_fit(files: dict[str, Path], images: Tensor, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_qonnx(files["resnet.qonnx"], images, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"flavor": "brevitas"}, ValueError, "flavor must be one of qonnx, finn, got 'brevitas'"),
        ({"classes": ["a", "b"]}, ValueError, "classes has 2 names, and the network gives 5 logits"),
        ({"classes": "abcde"}, ValueError, "classes must be a list of names"),
        ({"metadata": {"flavor": "mine"}}, ValueError, "metadata must not hold flavor"),
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


# ---- what FINN can map


def test_a_ready_network_maps() -> None:
    for model in (small(), small(per_conv=True), small_vgg(first_last_bits=8)):
        report = check_fpga(model)
        assert report.ok and not report.failures and f"all {len(report.layers)} layers map" in str(report)
    layers = {layer.path: layer.operation for layer in check_fpga(small()).layers}
    assert layers["conv1"] == "INT8 conv" and layers["layer2.0.shortcut.0.0"] == "binary 1x1 conv"
    assert layers["layer1.0"] == "addition" and layers["linear"] == "INT8 linear"


ORDINARY = {"padding_value": 0, "residual_bits": None, "first_last_bits": None, "shortcut": "avgpool"}
OTHER = {"padding_value": 1, "shortcut": "projection"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ORDINARY,
            [
                ("layer1.0.conv1", "pads with 0", "padding_value=-1"),
                ("layer1.0", "adds values that are not integers", "residual_bits=4"),
                ("layer2.0.act2", "saturates floats", "residual_bits=4"),
                ("pool", "averages floats", "residual_bits=4"),
                ("conv1", "multiplies floats", "first_last_bits=8"),
                ("linear", "multiplies floats", "first_last_bits=8"),
                ("layer2.0.shortcut.pool", "truncation", "shortcut='binary'"),
                ("layer2.0.shortcut", "pads or cuts channels", "shortcut='binary'"),
            ],
        ),
        (
            OTHER,
            [
                ("layer2.0.conv2", "pads with +1", "padding_value=-1"),
                ("layer2.0.shortcut.0.0", "multiplies floats", "shortcut='binary'"),
            ],
        ),
    ],
    ids=["ordinary", "other"],
)
def test_what_does_not_map_has_a_way_out(options: Any, expected: list[tuple[str, str, str]]) -> None:
    report = check_fpga(small(**options))
    assert not report.ok and f"of {len(report.layers)} layers do not map" in str(report)
    for path, note, way_out in expected:
        found = [layer for layer in report.failures if layer.path == path]
        assert any(note in layer.note and way_out in str(layer.ways_out) for layer in found), path
        assert way_out in str(report)
    assert any(layer.maps for layer in report.layers) == (options is OTHER)


def test_operands_of_two_scales_are_found() -> None:
    model = small()
    model.layer1[0].operand2 = IntegerQuantizer(4, bound=2.0)
    (layer,) = check_fpga(model).failures
    assert layer.path == "layer1.0" and "different scales" in layer.note and "tied" in layer.ways_out[0]


def test_a_teacher_is_sent_to_be_binarised() -> None:
    report = check_fpga(vgg_small(input_shape=SHAPE))
    assert any("binary='recu'" in way for way in report.ways_out)


def test_other_binary_layers_that_do_not_map() -> None:
    torch.manual_seed(0)
    report = check_fpga(Mixed(), input_shape=(3, 12, 12))
    notes = {layer.path: layer.note for layer in report.failures}
    assert "pads with +1" in notes["a"] and "groups" in notes["a"] and "offset" in notes["b"]
    assert "multiplies floats" in notes["stem"] and "Sub" not in notes
    assert report.ways_out["train with borders of -1: padding_value=-1"] == 2


class Between(nn.Module):
    """Something between two binary layers, on whole numbers of (n, 4, 8, 8) or, `flat`, behind the flattening."""

    def __init__(self, step: Any, *, flat: bool = False, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = BinaryConv2d(3, 4, 3, padding=1, padding_value=-1)
        self.second = BinaryConv2d(channels, 4, 1)
        self.last = BinaryLinear(256, 4)
        self.step, self.flat = step, flat
        self.per_channel = nn.Parameter(torch.linspace(0.5, 2, 4).reshape(4, 1, 1))
        self.per_pixel = nn.Parameter(torch.linspace(0.5, 2, 256).reshape(4, 8, 8))
        self.columns = nn.Parameter(torch.linspace(0.5, 2, 8))
        self.per_feature = nn.Parameter(torch.linspace(0.5, 2, 256))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.flat:
            return self.last(self.step(self, y.flatten(1)))
        y = self.second(self.step(self, y))
        return self.last(y.flatten(1) if y.shape[1] == 4 and y.shape[2] == 8 else y.reshape(-1, 256))


MAPS: dict[str, Any] = {
    "number": lambda m, y: y * 0.5 + 0.25,
    "per_channel": lambda m, y: y * m.per_channel - m.per_channel,
    "subtracted_from": lambda m, y: m.per_channel - y,
    "divided": lambda m, y: y / m.per_channel,
}
DOES_NOT: dict[str, tuple[Any, str]] = {
    "per_pixel": (lambda m, y: y * m.per_pixel + m.per_pixel, "shape .*8, 8.*one set per channel"),
    "per_column": (lambda m, y: y + m.columns, r"shape \(8,\).*one set per channel"),
    "divides_by_it": (lambda m, y: m.per_channel / y, "divides by a value that follows from the image"),
    "other_reshape": (lambda m, y: y.reshape(-1, 8, 4, 8).reshape(-1, 4, 8, 8), "another than a flat one"),
    "product": (lambda m, y: sign(y) @ sign(y), "multiplies two values that follow from the image"),
}


@pytest.mark.parametrize("name", MAPS)
def test_constants_that_thresholds_absorb(name: str) -> None:
    report = check_fpga(Between(MAPS[name]).eval(), input_shape=SHAPE)
    assert report.ok, str(report)


def test_a_constant_per_feature_behind_the_flattening() -> None:
    model = Between(lambda m, y: y * m.per_feature, flat=True).eval()
    assert check_fpga(model, input_shape=SHAPE).ok


@pytest.mark.parametrize("name", DOES_NOT)
def test_what_is_neither_per_channel_nor_a_flattening_does_not_map(name: str) -> None:
    step, why = DOES_NOT[name]
    report = check_fpga(Between(step).eval(), input_shape=SHAPE)
    assert not report.ok
    assert any(re.search(why, layer.note) for layer in report.failures), str(report)
    assert all(layer.ways_out for layer in report.failures)


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
    with pytest.raises(ExportError, match=rf"^1(\.how)?: .*{message}.*: treat every image alike"):
        refuse_mixing(graph)


@pytest.mark.parametrize("write", [to_qonnx, to_lce])
def test_files_that_take_one_image_refuse_what_depends_on_others(write: Any, tmp_path: Path) -> None:
    if write is to_lce and (sys.version_info >= (3, 13) or sys.platform != "linux"):
        pytest.skip("larq-compute-engine has no wheels here")
    model = nn.Sequential(nn.Identity(), MixesImages(MIXING["mean"][0])).eval()
    with pytest.raises(ExportError, match="^1: ReduceMean over the images of a batch: treat every image alike"):
        write(model, tmp_path / "net.onnx", input_shape=SHAPE)
    assert not list(tmp_path.iterdir())


def test_axes_of_one_image_may_meet(tmp_path: Path) -> None:
    """Also where the batch is no longer the first axis: attention moves it to the second."""
    how = lambda y: y.flatten(2).permute(2, 0, 1).softmax(0).amax(0)  # noqa: E731
    file = to_qonnx(MixesImages(how).eval(), tmp_path / "net.onnx", input_shape=SHAPE)
    assert file.is_file()
