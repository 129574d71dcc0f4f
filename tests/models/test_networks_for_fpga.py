"""Networks that an FPGA can hold: one scale per addition, the block's formula, their sizes, their recipes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from helpers.fpga import READY, SHAPE, rand, small, trained
from torch import Tensor, nn

from bnn_itrd import recipes
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.errors import UserError
from bnn_itrd.models import observe, resnet18, resnet20, summary, vgg_small
from bnn_itrd.quant import BinaryConv2d, IntegerQuantizer
from bnn_itrd.runs.networks import build
from bnn_itrd.training.step.objective import Objective


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
