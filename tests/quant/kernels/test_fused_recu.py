"""The fused kernels against the plain form: on a GPU, or through Triton's interpreter, which conftest.py asks for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bnn_itrd.config.train import TrainConfig
from bnn_itrd.config.trees import differences, to_dict
from bnn_itrd.errors import UserError
from bnn_itrd.quant import BinaryConv2d, recu_activation, recu_weight, set_fused
from bnn_itrd.training.step.compiling import use_fused_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The first needs two blocks of the kernel for a sample; one number has no variance.
SHAPES = [(2, 180, 7, 7), (4, 3), (2, 1), (2, 7, 3)]


@pytest.fixture(scope="module")
def fused() -> Callable[[Tensor], Tensor]:
    pytest.importorskip("triton", reason="Triton, which torch brings on Linux, is not installed")
    form: Callable[[Tensor], Tensor] = importlib.import_module("bnn_itrd.quant.kernels.recu").fused_recu_activation
    return form


def pair(form: Callable[[Tensor], Tensor], x: Tensor, incoming: Tensor) -> tuple[Tensor, Tensor]:
    x = x.to(DEVICE).detach().requires_grad_()
    y = form(x)
    return y.cpu(), torch.autograd.grad(y, x, incoming.to(DEVICE))[0].cpu()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients(fused: Callable[[Tensor], Tensor], dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    x = (0.7 * torch.randn(shape, generator=random) + 0.2).to(dtype)
    incoming = torch.randn(shape, generator=random).to(dtype)
    (signs, gradient), (expected, wanted) = pair(fused, x, incoming), pair(recu_activation, x, incoming)
    assert torch.equal(signs, expected) and signs.dtype == gradient.dtype == dtype
    # The interpreter cuts what bfloat16 has no room for, where a GPU rounds: one unit in the last place.
    rounding = {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype, 1e-6)
    torch.testing.assert_close(gradient, wanted, rtol=rounding, atol=rounding * float(wanted.abs().max()) / 4)


def test_channels_last_and_strides_of_any_kind(fused: Callable[[Tensor], Tensor]) -> None:
    random = torch.Generator().manual_seed(1)
    x, incoming = torch.randn(2, 3, 4, 5, generator=random), torch.randn(2, 3, 4, 5, generator=random)
    expected, wanted = pair(recu_activation, x, incoming)
    last = x.contiguous(memory_format=torch.channels_last)
    for laid_out in (last, x.transpose(1, 3).contiguous().transpose(1, 3), x.repeat_interleave(2, 3)[..., ::2]):
        signs, gradient = pair(fused, laid_out, incoming)
        assert torch.equal(signs, expected)
        torch.testing.assert_close(gradient, wanted)
    assert fused(last.to(DEVICE)).is_contiguous(memory_format=torch.channels_last)


def test_a_constant_and_the_two_zeros(fused: Callable[[Tensor], Tensor]) -> None:
    x, incoming = torch.tensor([[0.0, -0.0, 0.0], [3.0, 3.0, 3.0]]), torch.ones(2, 3)
    (signs, gradient), (_, wanted) = pair(fused, x, incoming), pair(recu_activation, x, incoming)
    assert signs.tolist() == [[1, 1, 1], [1, 1, 1]]
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("tau", [0.85, 0.99])  # 0.85 cuts the gradient of a third of the weights
@pytest.mark.parametrize("shape", [(3, 50, 7, 7), (4, 3), (2, 1), (5, 7, 3, 3)])
def test_weights(fused: Callable[[Tensor], Tensor], shape: tuple[int, ...], tau: float) -> None:
    kernels = importlib.import_module("bnn_itrd.quant.kernels.recu")
    random = torch.Generator().manual_seed(0)
    weight, incoming = 0.7 * torch.randn(shape, generator=random) + 0.2, torch.randn(shape, generator=random)
    signs, wanted = pair(lambda w: recu_weight(w, tau=tau), weight, incoming)
    last = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    for laid_out in (weight, weight.contiguous(memory_format=last), weight.repeat_interleave(2, 1)[:, ::2]):
        found, gradient = pair(lambda w: kernels.fused_recu_weight(w, tau=torch.tensor(tau)), laid_out, incoming)
        assert torch.equal(found, signs)
        torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))
    with pytest.raises(ValueError, match=r"two axes or more, in float32, got \(2, 3\) in torch.float64"):
        kernels.fused_recu_weight(torch.ones(2, 3, dtype=torch.float64, device=DEVICE), tau=tau)


def test_there_is_no_second_derivative(fused: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[0.5, -1.0, 2.0]], device=DEVICE, requires_grad=True)
    (gradient,) = torch.autograd.grad(fused(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(gradient.sum(), x)


@pytest.mark.compiles
def test_a_layer_that_is_switched_compiles_whole(fused: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    layer, x = BinaryConv2d(3, 4, 3, padding=1, scheme="recu").to(DEVICE), torch.randn(2, 3, 5, 5, device=DEVICE)
    names = set(layer.state_dict())
    (plain,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    assert set_fused(layer, True) == 2
    torch.compiler.reset()
    (switched,) = torch.autograd.grad(
        torch.compile(layer, fullgraph=True, backend="aot_eager")(x).square().sum(), layer.weight
    )
    assert set(layer.state_dict()) == names and set_fused(layer, False) == 2
    torch.testing.assert_close(switched, plain)


def test_what_the_kernels_do_not_take_is_refused(
    fused: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for x in (torch.ones(2, 3, dtype=torch.float64, device=DEVICE), torch.ones(3, device=DEVICE)):
        with pytest.raises(ValueError, match="two axes or more, in float32, bfloat16 or float16, got"):
            fused(x)
    monkeypatch.setattr("bnn_itrd.quant.kernels.recu._ON_GPU", True)  # as it is without Triton's interpreter
    with pytest.raises(ValueError, match=r"run on a GPU, but an input is on cpu: .*set_fused\(network, False\)"):
        fused(torch.ones(2, 3))


def test_who_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, lines = TrainConfig(fused_kernels=True), list[str]()
    layer = BinaryConv2d(1, 1, 1, scheme="recu")

    def takes(config: TrainConfig, device: str, model: nn.Module = layer) -> bool:
        use_fused_kernels(model, config, device=device, say=lines.append)
        return any(getattr(module, "fused", False) for module in model.modules())

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert takes(asked, "cuda") and not takes(TrainConfig(), "cuda") and not takes(TrainConfig(), "cpu")
    assert not takes(asked, "cpu", nn.Linear(1, 1)) and lines == []
    assert not takes(asked, "mps")
    assert lines == ["train.fused_kernels has no effect on mps: ReCU is computed as without it"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not takes(asked, "cuda", nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"train\.fused_kernels needs Triton, which is not installed"):
        takes(asked, "cuda")
    with pytest.raises(ImportError, match="the fused kernels need Triton, which is not installed"):
        set_fused(layer, True)
    assert set_fused(layer, False) == 2 and set_fused(nn.Linear(1, 1), True) == 0


def test_a_run_from_before_there_were_kernels_is_continued() -> None:
    now = {"train": to_dict(TrainConfig(fused_kernels=True))}
    before = {"train": {key: value for key, value in now["train"].items() if key != "fused_kernels"}}
    assert differences(before, now) == [] == differences(now, before)
