"""`observe` gives the maps, representation and logits of networks, ours and foreign ones, compiled and copied too."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bnn_itrd.models import Observed, observe, resnet20


@pytest.mark.parametrize("binary", [None, "recu"])
def test_observe_gives_the_classifiers_input(binary: str | None) -> None:
    model = resnet20(binary=binary).eval()
    out = observe(model)(torch.randn(3, 3, 32, 32))
    assert out.representation.shape == (3, 64)
    torch.testing.assert_close(model.linear(out.representation), out.logits)
    assert [tuple(s.shape[1:]) for s in out.stages] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_observe_takes_foreign_networks() -> None:
    model = torchvision.models.resnet18(weights=None, num_classes=5).eval()
    out = observe(model)(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(model.fc(out.representation), out.logits)
    assert len(out.stages) == 4
    headless = torchvision.models.squeezenet1_1(weights=None).features
    with pytest.raises(ValueError, match="no linear layer"):
        observe(headless)
    with pytest.raises(ValueError, match="no submodule 'nothing'"):
        observe(model, stages=("nothing",))


class Detached(nn.Module):
    """A layer that nobody calls, and one that returns two things."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2, self.fc = nn.Conv2d(3, 4, 3), nn.LSTM(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(x)[0][-1])


def test_observe_says_which_stage_gives_no_map() -> None:
    x = torch.randn(2, 3, 4)
    with pytest.raises(RuntimeError, match="stage 'layer1' was not called in the forward pass: choose others"):
        observe(Detached())(x)
    with pytest.raises(RuntimeError, match="stage 'layer2' returned no tensor"):
        observe(Detached(), stages=("layer2",))(x)


def test_observe_takes_timm_networks() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=4).eval()
    out = observe(model)(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(model.fc(out.representation), out.logits)


@pytest.mark.compiles
@pytest.mark.exhaustive
def test_observe_compiles_whole_and_lets_go() -> None:
    model = resnet20(binary="recu").eval()
    observed = observe(model)
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(observed, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x).representation, observed(x).representation)
    observed.remove()
    assert not model.linear._forward_pre_hooks


@pytest.mark.compiles
def test_a_direct_call_leaves_nothing_behind() -> None:
    """After a user's own call of the network, or one that failed, no tensor is kept, and nothing is compiled again."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    observed, x = observe(model), torch.randn(2, 3, 8, 8)
    compilations = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(observed, backend=backend)
    before = dict(observed.__dict__)
    first = compiled(x).logits
    model(x)
    with pytest.raises(RuntimeError, match="shape"):
        observed(torch.randn(2, 3, 9, 9))
    model(x)
    torch.testing.assert_close(compiled(x).logits, first)
    assert observed.__dict__ == before and len(compilations) == 1


def test_a_call_within_a_call_has_its_own_outputs() -> None:
    """As for a network that compares its answer with the one that it gives to other images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    observed, x, inner = observe(model, stages=["1"]), torch.randn(2, 4), []

    def ask(*_: object) -> None:
        handle.remove()
        inner.append(observed(-x))

    handle = model[0].register_forward_hook(ask)
    outputs = observed(x)
    for got, want in zip((outputs, *inner), (x, -x), strict=True):
        assert torch.equal(got.logits, model(want)) and torch.equal(got.stages[0], model[1](want))


def saved_and_loaded(module: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


@pytest.mark.parametrize("duplicate", [copy.deepcopy, saved_and_loaded])
def test_a_copy_of_an_observed_network_observes_itself(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    model = resnet20(binary="recu").eval()
    observed, x = observe(model), torch.randn(2, 3, 32, 32)
    model(x)  # a direct call leaves nothing behind that could not be copied, such as activations with a graph
    other = duplicate(observed)
    assert isinstance(other, Observed) and other.model is not model
    with torch.no_grad():
        other.model.conv1.weight.mul_(-1)
    want, got = observed(x), other(x)
    assert not torch.equal(got.stages[0], want.stages[0]) and len(got.stages) == 3
    torch.testing.assert_close(other.model.linear(got.representation), got.logits)
    other.remove()
    assert model.linear._forward_pre_hooks and not other.model.linear._forward_pre_hooks
    torch.testing.assert_close(duplicate(model)(x), want.logits)
