"""AdaBin's Maxout: against a loop, in the authors' ResNet-18, and in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bnn_itrd import recipes
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import member_config
from bnn_itrd.export import to_onnx, validate
from bnn_itrd.export.runtime.native import library_path, why_unavailable
from bnn_itrd.models import resnet8, resnet18
from bnn_itrd.quant import BinaryConv2d, Maxout, Scheme
from bnn_itrd.runs.networks import build


def test_maxout_by_hand_with_its_gradient() -> None:
    """lambda+ relu(x) - lambda- relu(-x), as the authors write it."""
    act = Maxout(3).double()
    torch.manual_seed(0)
    nn.init.uniform_(act.above, 0.5, 1.5)
    nn.init.uniform_(act.below, -0.5, 0.5)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    y = act(x).detach().numpy()
    for i in np.ndindex(*x.shape):
        value, c = x[i].item(), i[1]
        want = act.above[c].item() * max(value, 0.0) - act.below[c].item() * max(-value, 0.0)
        assert y[i] == pytest.approx(want)
    assert torch.autograd.gradcheck(act, (x,))
    act(x).sum().backward()
    values, above = x.detach().numpy(), act.above.grad
    assert above is not None
    np.testing.assert_allclose(above.numpy(), np.maximum(values, 0).sum((0, 2, 3)))
    assert act(torch.zeros(2, 3, dtype=torch.float64)).tolist() == [[0.0] * 3] * 2
    with pytest.raises(ValueError, match="channels must be >= 1, got 0"):
        Maxout(0)


def test_it_keeps_the_dtype_of_half_precision() -> None:
    act = Maxout(4)
    x = torch.randn(3, 4, dtype=torch.bfloat16)
    assert act(x).dtype == torch.bfloat16
    assert torch.equal(act(x), act(x.float()).bfloat16())


def test_the_recipe_has_the_authors_network() -> None:
    """Counted after their code: nets/resnet18.py of AdaBin."""
    config = run_config("run", "", recipes.read("cifar10-adabin"), [], extra={})[0]
    member = member_config(config, "adabin")
    with torch.device("meta"):
        model = build(member.network, member.scheme, num_classes=10, input_shape=(3, 32, 32))
    assert [m.channels for m in model.modules() if isinstance(m, Maxout)] == (
        [64] + [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4
    )
    assert sum(isinstance(m, BinaryConv2d) for m in model.modules()) == 16
    shortcuts = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert [(m.out_channels, m.stride) for m in shortcuts] == [(128, (2, 2)), (256, (2, 2)), (512, (2, 2))]
    convolutions = 9 * (3 * 64 + 4 * 64**2 + 64 * 128 + 3 * 128**2 + 128 * 256 + 3 * 256**2 + 256 * 512 + 3 * 512**2)
    ones = 64 * 128 + 128 * 256 + 256 * 512
    # BatchNorms and Maxouts have two numbers a channel, an activation a distance and a centre.
    norms = 2 * (64 + 4 * (64 + 128 + 256 + 512) + (128 + 256 + 512) + 512)
    maxouts = 2 * (64 + 4 * (64 + 128 + 256 + 512))
    assert sum(p.numel() for p in model.parameters()) == convolutions + ones + norms + maxouts + 16 * 2 + 5130


def test_the_stem_has_an_activation_where_it_is_asked_for() -> None:
    student = resnet18(3, binary="recu", width=0.125, stem_activation=True)
    assert isinstance(student.act1, nn.Hardtanh)
    assert isinstance(resnet8(3, binary="recu", stem_activation=False).act1, nn.Identity)
    with pytest.raises(ValueError, match="stem_activation=False needs a binary network"):
        resnet18(3, stem_activation=False)


def test_a_file_with_maxout_is_the_network_and_the_same_bits_with_the_native_library(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scheme = Scheme("adabin", "adabin", nonlinearity="maxout")
    model = resnet8(4, binary=scheme, width=0.5, shortcut="projection", per_conv=True, input_shape=(3, 8, 8))
    for module in model.modules():
        if isinstance(module, Maxout):
            nn.init.uniform_(module.above, 0.5, 1.5)
            nn.init.uniform_(module.below, -0.5, 0.5)
    for _ in range(3):
        model(torch.randn(16, 3, 8, 8))
    model.eval()
    file = tmp_path / "s.onnx"
    to_onnx(model, file)
    images = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    result = validate(model, file, images)
    assert result.median_difference < 1e-5 and result.argmax_agreement >= 7 / 8
    if why_unavailable():
        pytest.skip(why_unavailable())
    answers = []
    for native in (False, True):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if native:
            options.register_custom_ops_library(str(library_path()))
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        answers.append(session.run(None, {session.get_inputs()[0].name: images})[0])
    np.testing.assert_array_equal(*answers)
