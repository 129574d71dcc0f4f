"""What `binarize` knows of the signs that a binary layer reads: an interval goes through every operation it knows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from bnn_itrd.quant import Report, Scheme, binarize
from bnn_itrd.quant.rewrite.bounds import find_bounds
from bnn_itrd.quant.rewrite.graph import Net
from bnn_itrd.quant.rewrite.tracing import trace

# `binarize` follows a network with torch.fx.
pytestmark = pytest.mark.compiles

Function = Callable[[Any, Tensor, Tensor], Tensor]


class Applied(nn.Module):
    """Two convolutions of one image, a function of both maps, and a layer that becomes binary behind it."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.a, self.b, self.body, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
        self.factor, self.pool = nn.Parameter(torch.ones(4, 1, 1)), nn.AdaptiveAvgPool2d(1)
        self.register_buffer("shift", torch.tensor(1.5))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.function(self, self.a(x), self.b(x))).mean((2, 3)))


def report_of(function: Function, **options: Any) -> Report:
    return binarize(Applied(function), **options).report


# Each reads +1 alone (or -1 alone), whatever the network's image and its parameters are.
ONE_SIGN: list[Function] = [
    lambda m, a, b: F.relu(a) + F.relu(b),
    lambda m, a, b: a * a,
    lambda m, a, b: F.relu6(a) / 6 + 1,
    lambda m, a, b: a.relu().add(b.abs()),
    lambda m, a, b: torch.sigmoid(a) * torch.sigmoid(b),
    lambda m, a, b: torch.sigmoid(a) + torch.tanh(b).square(),
    lambda m, a, b: 2 - torch.sigmoid(a),
    lambda m, a, b: torch.tanh(a) + 1,
    lambda m, a, b: -torch.exp(a),
    lambda m, a, b: -F.softplus(a) - 1,
    lambda m, a, b: torch.maximum(a, F.softplus(b)),
    lambda m, a, b: torch.max(a.abs(), b),
    lambda m, a, b: torch.where(a > 0, a.abs(), b.square()),
    lambda m, a, b: a.clamp(min=0) + m.shift,
    lambda m, a, b: F.hardsigmoid(a) * m.shift,
    lambda m, a, b: F.silu(a.abs()),
    lambda m, a, b: F.leaky_relu(a.abs() + 1),
    lambda m, a, b: F.leaky_relu(a, -1.0),
    lambda m, a, b: F.elu(a) + 1,
    lambda m, a, b: F.celu(a, 0.5) + F.selu(b) + 2.5,
    lambda m, a, b: (a.abs() + 0.5).reciprocal(),
    lambda m, a, b: 1 / (1 + torch.exp(-a)),
    lambda m, a, b: (a.relu() + 1e-3) ** 0.5,
    lambda m, a, b: a.abs() ** 3,
    lambda m, a, b: (a.square() + b.square()).sqrt(),
    lambda m, a, b: a.softmax(1) - 2,
    lambda m, a, b: F.pad(a.abs(), (1, 1, 1, 1)),
    lambda m, a, b: F.scaled_dot_product_attention(a, b, a.abs()),
    lambda m, a, b: F.avg_pool2d(F.dropout(a.exp(), 0.5, m.training), 2) * 3,
    lambda m, a, b: torch.sum(a.abs(), 1, keepdim=True).expand(-1, 4, -1, -1),
    lambda m, a, b: torch.einsum("nchw,nchw->nchw", a.abs(), b.abs()),
]
# Their values have both signs, or nothing keeps them from having both.
BOTH: list[Function] = [
    lambda m, a, b: a + F.relu(b),
    lambda m, a, b: a * b,
    lambda m, a, b: a * m.factor,
    lambda m, a, b: F.relu(a) - F.relu(b),
    lambda m, a, b: F.relu(a) * b,
    lambda m, a, b: torch.tanh(a) + 0.5,
    lambda m, a, b: torch.sigmoid(a) - 0.5,
    lambda m, a, b: torch.sigmoid(a) - m.shift / 3,
    lambda m, a, b: -F.relu(a),
    lambda m, a, b: F.relu6(a) / 6 - 0.5,
    lambda m, a, b: F.pad(a.abs() + 1, (1, 1, 1, 1), value=-1) - 1,
    lambda m, a, b: torch.minimum(a, F.relu(b)),
    lambda m, a, b: torch.where(a > 0, a, F.relu(b)),
    lambda m, a, b: F.elu(a) + F.leaky_relu(b),
    lambda m, a, b: F.elu(a, 2.0) + 1,
    lambda m, a, b: a.abs() * m.factor,
    lambda m, a, b: a / (b.abs() + 1),
    lambda m, a, b: a.abs() / b,
    lambda m, a, b: F.scaled_dot_product_attention(a, b, a),
    lambda m, a, b: (a - b).abs().log1p() * a,
    lambda m, a, b: torch.sub(a.abs(), b.abs(), alpha=2),
    lambda m, a, b: F.interpolate(a.abs(), scale_factor=2.0, mode="bicubic") + 0.0,
]


@pytest.mark.parametrize("function", ONE_SIGN)
def test_a_layer_that_reads_one_sign_is_warned_about(function: Function) -> None:
    report = report_of(function)
    (warning,) = report.warnings
    assert warning.startswith("body reads ") and warning.endswith(", whose values all have the same sign")
    assert report.verdict.startswith("does not work as it is: reads values of one sign: 1 layer (body)")


@pytest.mark.parametrize("function", BOTH)
def test_a_layer_that_reads_both_signs_is_not(function: Function) -> None:
    report = report_of(function)
    assert report.warnings == report.unknown == [] and report.verdict.startswith("doubtful: binary without a norm")


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda m, a, b: a.cumprod(2), "cumprod()"),
        (lambda m, a, b: F.relu(a).cumprod(2), "cumprod()"),
        (lambda m, a, b: a.cumprod(2) + b, "add()"),
        (lambda m, a, b: torch.fft.fft2(a).real + F.relu(b), "add()"),
    ],
)  # fmt: skip
def test_what_an_operation_does_that_is_not_known_is_unknown(function: Function, name: str) -> None:
    report = report_of(function)
    assert report.warnings == []
    assert report.unknown == [f"body reads {name}: whether its values have both signs is unknown"]
    assert f"unknown: {report.unknown[0]}" in str(report).splitlines()
    assert report.verdict.startswith("doubtful: reads values whose signs are unknown: 1 layer (body)")


def test_what_is_known_of_an_unknown_value_is_said() -> None:
    assert len(report_of(lambda m, a, b: a.cumprod(2).abs() + 1).warnings) == 1
    assert report_of(lambda m, a, b: F.batch_norm(a.cumprod(2), None, None, training=True)).unknown == []


@pytest.mark.parametrize(
    ("function", "replaced", "one_sign"),
    [
        (lambda m, a, b: F.relu(a) * 0.5, {"relu()"}, True),
        (lambda m, a, b: 0.5 * F.relu6(a) / 6, {"relu6()"}, True),
        (lambda m, a, b: F.relu(a) * torch.sigmoid(b), {"relu()"}, True),
        (lambda m, a, b: F.max_pool2d(F.relu(a), 1) * F.hardsigmoid(m.pool(a)), {"relu()"}, True),
        (lambda m, a, b: F.relu(a) / (1 + b.abs()), {"relu()"}, True),
        (lambda m, a, b: F.relu(a) * F.relu(b), set(), True),
        (lambda m, a, b: F.relu(a) * b, set(), False),
        (lambda m, a, b: F.relu(a) * -0.5, set(), False),
        (lambda m, a, b: F.relu(a) + 0.5, set(), True),
    ],
)
def test_a_relu_in_front_of_a_factor_that_is_never_negative_is_replaced(
    function: Function, replaced: set[str], one_sign: bool
) -> None:
    """Such a factor keeps the sign: with hardtanh in its place, the layer reads both."""
    report = report_of(function)
    assert {c.path for c in report.changes if c.action == "replaced"} == replaced
    assert bool(report.warnings) == (one_sign and not replaced)


def test_of_a_concatenation_each_part_is_warned_about() -> None:
    report = report_of(lambda m, a, b: F.max_pool2d(torch.cat([a[:, :2].abs(), b[:, :1].exp(), b[:, :1]], 1), 2))
    assert [w.split(",")[0] for w in sorted(report.warnings)] == ["body reads abs_1()", "body reads exp()"]


def test_a_nonlinearity_of_one_sign_is_warned_about() -> None:
    function: Function = lambda m, a, b: F.relu(a)  # noqa: E731
    assert report_of(function, scheme=Scheme(nonlinearity=nn.Hardtanh)).warnings == []
    (warning,) = report_of(function, scheme=Scheme(nonlinearity=nn.ReLU6)).warnings
    assert warning == "body reads relu(), whose values all have the same sign"


# One function each, of a map and of numbers that are never negative.
OTHERS: list[Callable[[Tensor], Tensor]] = [
    F.leaky_relu, F.elu, F.selu, F.celu, F.tanhshrink, F.hardshrink, F.softshrink, F.softsign, F.rrelu, F.logsigmoid,
    F.silu, F.gelu, F.mish, F.hardswish, F.relu, F.relu6, F.hardtanh, F.hardsigmoid, F.softplus, F.sigmoid,
    torch.round, torch.trunc, torch.erf, torch.tanh, torch.sin, torch.exp, torch.abs, torch.square, torch.neg,
    torch.sqrt, torch.rsqrt, torch.log1p, torch.reciprocal,
    lambda x: x.softmax(1), lambda x: F.softmin(x, 1), lambda x: F.log_softmax(x, 1), lambda x: x.cumsum(1),
    lambda x: x.amax(1), lambda x: x.amin(1), lambda x: x.mean(1), lambda x: x.max(1)[0], lambda x: x.std(1),
    lambda x: F.threshold(x, 0.5, -2), lambda x: x.clamp(-0.5, 2), lambda x: x.clamp_max(0.5), lambda x: x.clip(0.5),
    lambda x: x**3, lambda x: x**-1, lambda x: x**-2, lambda x: x**0.5, lambda x: x**1, lambda x: 2**x,
    lambda x: x // 2, lambda x: x / -3, lambda x: -2 * x - 1, lambda x: 1 - x, lambda x: x.masked_fill(x > 1, -1.0),
    lambda x: (x > 0.5) * 2.0, lambda x: F.dropout(x + 1, 0.5), lambda x: F.avg_pool2d(x, 2, padding=1),
    lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"), lambda x: x @ x.transpose(2, 3), lambda x: x.T,
]  # fmt: skip


class Watched(fx.Interpreter):
    """Runs a graph and notes what each step gives."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: list[tuple[fx.Node, Any]] = []

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.seen.append((n, value))
        return value


def check_values(model: nn.Module, *, scales: tuple[float, ...]) -> None:
    """Holds the values of all steps, of random images of some sizes, against the bounds that are known of them."""
    torch.manual_seed(0)
    net = Net(model, model, trace(model, copy.deepcopy(model)))
    bounds = find_bounds(net)
    for scale in scales:
        for training in (True, False):
            watched = Watched(fx.GraphModule(model.train(training), net.graph))
            watched.run(scale * torch.randn(2, 3, 6, 6))
            for node, value in watched.seen:
                known = bounds.get(node)
                if known is not None and isinstance(value, Tensor) and value.is_floating_point():
                    numbers = value[~value.isnan()]
                    slack = 1e-4 * numbers.abs().clamp(min=1)
                    assert bool((known.low <= numbers + slack).all()), (node, known)
                    assert bool((numbers - slack <= known.high).all()), (node, known)
                    if known.one_sign:
                        # A log-softmax just below 0 is rounded to 0.
                        assert bool((numbers >= 0).all()) or bool((numbers <= 0).all()), (node, known)


@pytest.mark.parametrize("function", [*ONE_SIGN, *BOTH])
def test_all_values_lie_between_their_bounds(function: Function) -> None:
    check_values(Applied(function), scales=(1.0, 30.0))


class Alone(nn.Module):
    """A function of values of both signs, of values that are never negative, and of values below 0."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.function(x), self.function(x.abs()), self.function(x.abs() + 0.25), self.function(-x.square() - 1)]


@pytest.mark.parametrize("function", OTHERS)
@pytest.mark.filterwarnings("ignore:The use of `x.T`")
def test_all_values_of_a_function_lie_between_its_bounds(function: Callable[[Tensor], Tensor]) -> None:
    check_values(Alone(function), scales=(1.0, 10.0))
