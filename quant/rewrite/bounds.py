"""Computes, for each node of a traced network, an interval (`Bounds`) that holds all values the node can have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from bnn_itrd.quant.rewrite.graph import CONV, LINEAR, MIXING, NORMS, PASSING, Net, inputs

__all__ = ["Bounds", "activation_bounds", "find_bounds"]

_INF = math.inf
# The floats next to 0. They end the intervals of values that only rounding makes 0, because 0 has the sign +1.
_BELOW, _ABOVE = math.nextafter(0, -1), math.nextafter(0, 1)


class Bounds(NamedTuple):
    """An interval that holds all values of a node, for any input and parameters of the network.

    >>> Bounds(0, 6).one_sign, Bounds(-1, 0).one_sign
    (True, False)
    """

    low: float
    high: float

    @property
    def one_sign(self) -> bool:
        """True if all values have the same sign; that of 0 is +1."""
        return self.low >= 0 or self.high < 0


ANY, _POSITIVE = Bounds(-_INF, _INF), Bounds(0, _INF)
Rule = Callable[[Bounds, Mapping[str, Any]], Bounds]


def _hull(bounds: Iterable[Bounds]) -> Bounds:
    lows, highs = zip(*bounds, strict=True)
    return Bounds(min(lows), max(highs))


def _shrunk(b: Bounds) -> Bounds:
    """Returns the interval extended to 0 (negative ones to just below), for means in which padded zeros take part."""
    return Bounds(min(b.low, 0), max(b.high, 0 if b.high >= 0 else _BELOW))


def _stretched(b: Bounds) -> Bounds:
    """Returns the largest interval whose values have the same signs as b's, for sums and slopes."""
    low = -_INF if b.low < 0 else _ABOVE if b.low > 0 else 0
    return Bounds(low, _INF if b.high > 0 else _BELOW if b.high < 0 else 0)


def _with_zero(b: Bounds) -> Bounds:
    return _hull([b, Bounds(0, 0)])


def _negated(b: Bounds) -> Bounds:
    return Bounds(-b.high, -b.low)


def _plus(a: Bounds, b: Bounds) -> Bounds:
    return Bounds(a.low + b.low, a.high + b.high)


def _times(a: Bounds, b: Bounds) -> Bounds:
    corners = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return Bounds(min(corners), max(corners))


def _over(a: Bounds, b: Bounds) -> Bounds:
    if b.low < 0 <= b.high:
        return ANY
    ends = [math.copysign(_INF, b.high) if end == 0 else 1 / end for end in b]
    return _times(a, Bounds(min(ends), max(ends)))


def _clamped(b: Bounds, low: Any, high: Any) -> Bounds:
    """Returns b clamped to low and high; a limit that is not a number but computed by the network is ignored."""
    low, high = (limit if isinstance(limit, (int, float)) else None for limit in (low, high))
    if low is not None:
        b = Bounds(max(b.low, low), max(b.high, low))
    return b if high is None else Bounds(min(b.low, high), min(b.high, high))


def _power(a: Bounds, exponent: Any) -> Bounds:
    if not isinstance(exponent, (int, float)):
        return _POSITIVE if a.low >= 0 else ANY
    if exponent % 2 == 0:
        return _POSITIVE
    return _stretched(a) if exponent > 0 and exponent % 2 == 1 else _POSITIVE if a.low >= 0 or exponent % 1 else ANY


def _elu(b: Bounds, options: Mapping[str, Any]) -> Bounds:
    """Returns the bounds of an ELU, which keeps signs and is at least -alpha; the default alpha is SELU's constant."""
    alpha, (low, high) = options.get("alpha", 1.7581), _stretched(b)
    return Bounds(max(low, -alpha), high) if isinstance(alpha, (int, float)) and alpha >= 0 else ANY


def _rising(function: Callable[[float], float]) -> Rule:
    return lambda b, _: Bounds(function(b.low), function(b.high))


def _dipping(lowest: float) -> Rule:
    """Returns the rule for SiLU and the like, which lie between `lowest` and 0 for x < 0, and in [0, x] for x > 0."""
    return lambda b, _: Bounds(lowest if b.low < 0 else 0, max(b.high, 0))


def _sigmoid(x: float) -> float:
    return max(0.5 * (1 + math.tanh(x / 2)), _ABOVE)


def _same(b: Bounds, _: Mapping[str, Any]) -> Bounds:
    return b


def _threshold(b: Bounds, options: Mapping[str, Any]) -> Bounds:
    limit, value = options["threshold"], options["value"]
    return _hull([_clamped(b, limit, None), Bounds(value, value)]) if isinstance(value, (int, float)) else ANY


# Operations on one value, by the names of function, method or module without underscores: (the value's bounds, the
# options named in _OPTIONS) -> the bounds of the result.
_UNARY: dict[str, Rule] = {
    **dict.fromkeys(["neg", "negative"], lambda b, _: _negated(b)),
    **dict.fromkeys(["rrelu", "log1p"], lambda b, _: _stretched(b)),
    **dict.fromkeys(["elu", "selu", "celu"], _elu),
    "leakyrelu": lambda b, o: _POSITIVE if isinstance(o["slope"], (int, float)) and o["slope"] < 0 else _stretched(b),
    **dict.fromkeys(["hardshrink", "softshrink", "tanhshrink"], lambda b, _: _with_zero(_stretched(b))),
    **dict.fromkeys(["round", "trunc"], lambda b, _: _with_zero(_stretched(b))),
    **dict.fromkeys(["abs", "absolute", "square", "norm", "std", "var", "cosh"], lambda b, _: _POSITIVE),
    **dict.fromkeys(["softmax", "softmin", "softmax2d", "bernoulli"], lambda b, _: Bounds(0, 1)),
    **dict.fromkeys(["logsigmoid", "logsoftmax"], lambda b, _: Bounds(-_INF, _BELOW)),
    **dict.fromkeys(["sin", "cos"], lambda b, _: Bounds(-1, 1)),
    **dict.fromkeys(["sum", "cumsum"], lambda b, _: _stretched(b)),
    **dict.fromkeys(["hardtanh", "clamp", "clip"], lambda b, o: _clamped(b, o["min"], o["max"])),
    **dict.fromkeys(["mean", "amax", "amin", "max", "min", "median", "sort", "topk"], _same),
    "clampmin": lambda b, o: _clamped(b, o["min"], None),
    "clampmax": lambda b, o: _clamped(b, None, o["max"]),
    "relu": lambda b, _: _clamped(b, 0, None),
    "relu6": lambda b, _: _clamped(b, 0, 6),
    "hardsigmoid": _rising(lambda x: min(max(x / 6 + 0.5, 0), 1)),
    "sigmoid": _rising(_sigmoid),
    "tanh": _rising(math.tanh),
    "erf": _rising(math.erf),
    "softsign": _rising(lambda x: math.copysign(1, x) if math.isinf(x) else x / (1 + abs(x))),
    "softplus": _rising(lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))) or _ABOVE),
    "exp": _rising(lambda x: math.exp(x) or _ABOVE if x < 700 else _INF),
    "sqrt": lambda b, _: _POSITIVE,
    "rsqrt": lambda b, _: _POSITIVE,
    "reciprocal": lambda b, _: _over(Bounds(1, 1), b),
    "prelu": lambda b, _: b if b.low >= 0 else ANY,
    "pow": lambda b, o: _power(b, o["exponent"]),
    "threshold": _threshold,
    "silu": _dipping(-0.2785),
    "gelu": _dipping(-0.17005),
    "mish": _dipping(-0.30885),
    "hardswish": _dipping(-0.375),
}
_LIMITS: dict[str, tuple[int, tuple[str, ...], Any]] = {"min": (1, ("min",), None), "max": (2, ("max",), None)}
# The options that the rules read: the position of the argument, its names in a call or module, its default.
_OPTIONS: dict[str, dict[str, tuple[int, tuple[str, ...], Any]]] = {
    "hardtanh": {"min": (1, ("min_val",), -1), "max": (2, ("max_val",), 1)},
    "clamp": _LIMITS,
    "clip": _LIMITS,
    "clampmin": {"min": (1, ("min",), None)},
    "clampmax": {"max": (1, ("max",), None)},
    "pow": {"exponent": (1, ("exponent",), None)},
    "elu": {"alpha": (1, ("alpha",), 1.0)},
    "celu": {"alpha": (1, ("alpha",), 1.0)},
    "leakyrelu": {"slope": (1, ("negative_slope",), 0.01)},
    "threshold": {"threshold": (1, ("threshold",), None), "value": (2, ("value",), None)},
}
_BINARY: dict[str, Callable[[Bounds, Bounds], Bounds]] = {
    **dict.fromkeys(["add", "iadd"], _plus),
    **dict.fromkeys(["sub", "isub", "subtract"], lambda a, b: _plus(a, _negated(b))),
    **dict.fromkeys(["mul", "imul", "multiply"], _times),
    **dict.fromkeys(["gt", "ge", "lt", "le", "eq", "ne"], lambda a, b: Bounds(0, 1)),
    **dict.fromkeys(["div", "idiv", "truediv", "itruediv", "divide"], _over),
    "floordiv": lambda a, b: Bounds(*(math.floor(x) if math.isfinite(x) else x for x in _over(a, b))),
    **dict.fromkeys(["maximum", "max"], lambda a, b: Bounds(max(a.low, b.low), max(a.high, b.high))),
    **dict.fromkeys(["minimum", "min"], lambda a, b: Bounds(min(a.low, b.low), min(a.high, b.high))),
}
# Operations whose second argument is either a value or an axis.
_EITHER = ("max", "min")


class _Carrier:
    """Computes the lowest and highest value of each node of a graph; `found`: node -> bounds, None where unknown."""

    def __init__(self, net: Net, replaced: Mapping[fx.Node, Bounds]) -> None:
        self.net = net
        self.found: dict[fx.Node, Bounds | None] = {}
        for node in net.graph.nodes:
            self.found[node] = self._replaced(node, replaced[node]) if node in replaced else self._of_step(node)

    def _replaced(self, node: fx.Node, limits: Bounds) -> Bounds | None:
        """Returns the bounds of an activation whose place a nonlinearity with values within `limits` will take."""
        before = self.found[inputs(node)[0]]
        result = _clamped(before or ANY, *limits)
        return None if before is None and not result.one_sign else result

    def _of_step(self, node: fx.Node) -> Bounds | None:
        net = self.net
        if net.is_a(node, MIXING) and all((b := self.found[n]) and b.low >= 0 for n in net.values(node)):
            return _POSITIVE
        if node.op == "placeholder" or any(net.is_a(node, kind) for kind in (CONV, LINEAR, NORMS, MIXING)):
            return ANY
        if node.op == "get_attr":
            return self._constant(str(node.target))
        if not net.values(node):  # the size of a tensor
            return _POSITIVE
        result = self._passed_on(node) if net.is_a(node, PASSING) else self._computed(node)
        unknown = any(self.found[n] is None for n in net.values(node))
        return None if result is not None and unknown and not result.one_sign else result

    def _constant(self, path: str) -> Bounds:
        """Returns the lowest and highest value of a buffer; a parameter is learned, so its bounds are infinite."""
        owner, _, name = path.rpartition(".")
        value = getattr(self.net.root.get_submodule(owner), name)
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or not value.numel():
            return ANY
        if value.is_meta or value.is_complex():
            return ANY
        return Bounds(float(value.min()), float(value.max()))

    def _of(self, value: Any) -> Bounds:
        """Returns the bounds of an argument, a number or a node; they are infinite where they are unknown."""
        if isinstance(value, (int, float)):
            return Bounds(value, value)
        return (self.found[value] if isinstance(value, fx.Node) else None) or ANY

    def _name(self, node: fx.Node) -> str:
        m = self.net.module(node)
        return (self.net.name(node) if m is None else type(m).__name__.lower()).replace("_", "")

    def _option(self, node: fx.Node, place: int, names: tuple[str, ...], default: Any) -> Any:
        m = self.net.module(node)
        if m is not None:
            return next((getattr(m, name) for name in names if hasattr(m, name)), default)
        if place < len(node.args):
            return node.args[place]
        return next((node.kwargs[name] for name in names if name in node.kwargs), default)

    def _passed_on(self, node: fx.Node) -> Bounds:
        name, given = self._name(node), _hull([self._of(n) for n in inputs(node)] or [ANY])
        if name in ("upsample", "interpolate"):
            return ANY if self._option(node, 3, ("mode",), "nearest") == "bicubic" else given
        if name in ("pad", "zeropad2d"):
            value = self._option(node, 3, ("value",), 0) or 0
            return (
                _hull([given, self._of(value)]) if self._option(node, 2, ("mode",), "constant") == "constant" else given
            )
        if "dropout" in name or name == "stochasticdepth":
            return ANY if "alpha" in name else _with_zero(_stretched(given))
        return _shrunk(given) if name.startswith("avgpool") else given

    def _computed(self, node: fx.Node) -> Bounds | None:
        name, first = self._name(node), node.args[0] if node.args else next(iter(node.kwargs.values()))
        second = self._option(node, 1, ("other",), None)
        if name in _BINARY and (isinstance(second, fx.Node) or (name not in _EITHER and second is not None)):
            if first is second and _BINARY[name] is _times:
                return _POSITIVE
            other = _times(self._of(second), self._of(node.kwargs.get("alpha", 1)))
            return _BINARY[name](self._of(first), other)
        if name in _UNARY:
            options = {what: self._option(node, *place) for what, place in _OPTIONS.get(name, {}).items()}
            return _UNARY[name](self._of(first), options)
        if name == "where" and len(node.args) == 3:
            return _hull([self._of(node.args[0 if node.op == "call_method" else 1]), self._of(node.args[2])])
        if name == "getattr" and node.args[1] in ("T", "mT", "data"):
            return self._of(first)
        if name == "scaleddotproductattention":  # weighted means of the third argument
            return self._of(self._option(node, 2, ("value",), None))
        if name == "maskedfill":
            return _hull([self._of(first), self._of(self._option(node, 2, ("value",), None))])
        return None


def activation_bounds(activation: nn.Module) -> Bounds:
    """Returns the lowest and highest output of an activation for any input; infinite ones for a user's own class.

    >>> activation_bounds(nn.Hardtanh()), activation_bounds(nn.PReLU())
    (Bounds(low=-1.0, high=1.0), Bounds(low=-inf, high=inf))
    """
    name = type(activation).__name__.lower()
    if name not in _UNARY:
        return ANY
    places = _OPTIONS.get(name, {})
    return _UNARY[name](
        ANY, {what: getattr(activation, names[-1], usual) for what, (_, names, usual) in places.items()}
    )


def find_bounds(net: Net, replaced: Mapping[fx.Node, Bounds] = MappingProxyType({})) -> dict[fx.Node, Bounds | None]:
    """Returns each node's lowest and highest value, None if unknown; replaced: old activation -> bounds of the new."""
    return _Carrier(net, replaced).found
