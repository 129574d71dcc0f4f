"""A binary network out of an ordinary one: `binarize(model)`."""

from __future__ import annotations

import copy
import difflib
import inspect
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, NamedTuple, cast

import torch.nn.functional as F
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.nn.modules import batchnorm, conv, dropout, pooling
from torch.utils import _pytree as pytree

from bnn_itrd.quant.layers import BinaryConv2d, BinaryLinear, _BinaryLayer
from bnn_itrd.quant.scheme import Scheme, as_scheme

__all__ = ["Binarized", "Change", "Report", "binarize"]

_WAY_OUT = (
    "make its forward traceable by torch.fx (no branch on values, the same steps in training and in "
    "evaluation), or build it with BinaryConv2d and BinaryLinear"
)
_SCALARS = (bool, int, float, str, type(None))


class Change(NamedTuple):
    """What became of a layer or one call of an activation; `path` ends in () where a function is called."""

    path: str
    kind: str
    action: Literal["binarised", "kept", "replaced"]
    reason: str


@dataclass
class Report:
    """What `binarize` did, in the order of execution; ``print(report)`` is a table.

    weights counts the elements of all parameters with two axes or more, binary_weights the binary ones among
    them. traced is False where the network could not be followed, with the tracer's words in `reason`.
    """

    changes: list[Change]
    warnings: list[str]
    weights: int
    binary_weights: int
    traced: bool = True
    reason: str = ""

    def __str__(self) -> str:
        rows = [Change._fields, *self.changes] if self.changes else []
        widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
        lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
        if not self.traced:
            lines.append(f"nothing changed, the network is not traceable: {self.reason}; {_WAY_OUT}")
        actions = [change.action for change in self.changes]
        counts = ", ".join(f"{actions.count(a)} {a}" for a in ("binarised", "replaced", "kept"))
        share = self.binary_weights / max(self.weights, 1)
        lines.append(f"{counts}; binary weights: {self.binary_weights:,} of {self.weights:,} ({share:.1%})")
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])


class Binarized(NamedTuple):
    """The binary copy of a network, and what was changed in it."""

    model: nn.Module
    report: Report


# ---- the trace: one graph that is right in training and in evaluation


class _Inlined(nn.Module):
    """The children of a module whose own forward is now part of the graph; hands on what that returned.

    So forward hooks on `layer1` and the like still see its output.
    """

    def __init__(self, inlined: nn.Module) -> None:
        super().__init__()
        self._modules, self._parameters = inlined._modules, inlined._parameters
        self._buffers = inlined._buffers
        self._non_persistent_buffers_set = inlined._non_persistent_buffers_set
        self.training = inlined.training

    def forward(self, x: Any) -> Any:
        return x


class _ByMode(nn.Module):
    """A constant of the forward pass that depends on the mode, such as the `training` of F.dropout."""

    def __init__(self, in_training: Any, in_evaluation: Any) -> None:
        super().__init__()
        self.in_training, self.in_evaluation = in_training, in_evaluation

    def forward(self) -> Any:
        return self.in_training if self.training else self.in_evaluation


class _Tracer(fx.Tracer):
    """Stops at torch's own layers and at binary ones; notes where the forward of any other module ended."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, (_BinaryLayer, _Inlined, _ByMode))
        return ours or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        if isinstance(result, fx.Proxy) and not self.is_leaf_module(m, path):
            return self.create_proxy("call_module", path, (result,), {})
        return result


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(v) for v in value)
    return isinstance(value, _SCALARS)


def _owner(node: fx.Node) -> str:
    """Path of the module in whose forward the node was made; empty for the network itself."""
    stack = node.meta.get("nn_module_stack")
    return next(reversed(stack.values()))[0] if stack else ""


def _trace_in(model: nn.Module, *, training: bool) -> fx.Graph:
    """The graph in one mode. Arguments of forward with a plain default are fixed at it, and gone."""
    parameters = inspect.signature(model.forward).parameters
    fixed = {name: p.default for name, p in parameters.items() if isinstance(p.default, _SCALARS)}
    modes = {m: m.training for m in model.modules()}
    for m in modes:
        m.training = training
    try:
        graph = _Tracer().trace(model, concrete_args=fixed or None)
    finally:
        for m, mode in modes.items():
            m.training = mode
    # torch.fx leaves the fixed arguments there, renamed, with assertions that break every later trace.
    useless = [n for n in graph.nodes if n.op == "placeholder" and n.target not in {*parameters}]
    useless = [n for n in useless if str(n.target).rpartition("_")[0] in fixed]
    for node in useless:
        useless += [user for user in node.users if user not in useless]
    for node in reversed(useless):
        graph.erase_node(node)
    return graph


def _trace(model: nn.Module, twin: nn.Module) -> fx.Graph:
    """The graph of model, a `_ByMode` wherever a constant differs between the modes; TraceError on more."""
    graph, evaluation = _trace_in(model, training=True), _trace_in(twin, training=False)
    for a, b in zip_longest(list(graph.nodes), list(evaluation.nodes)):
        if a is None or b is None or (a.op, a.target, a.name) != (b.op, b.target, b.name):
            raise TraceError("its forward takes other steps in training than in evaluation")
        ours, spec = pytree.tree_flatten((a.args, a.kwargs))
        theirs, other = pytree.tree_flatten((b.args, b.kwargs))
        differing = [i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if str(x) != str(y)]
        values = [v[i] for i in differing for v in (ours, theirs)]
        if spec != other or any(isinstance(v, (fx.Node, slice)) for v in values):
            raise TraceError(f"the arguments of {a.name} differ between training and evaluation")
        for i in differing:
            owner, name = model.get_submodule(_owner(a)), f"by_mode_{a.name}_{i}"
            owner.add_module(name, _ByMode(ours[i], theirs[i]).train(owner.training))
            with graph.inserting_before(a):
                ours[i] = graph.call_module(f"{_owner(a)}.{name}".lstrip("."))
        a.args, a.kwargs = pytree.tree_unflatten(ours, spec)
    for node in graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            if not _Tracer().is_leaf_module(module, node.target):
                model.set_submodule(node.target, _Inlined(module))
    return graph


# ---- what the graph tells


class _Kind(NamedTuple):
    """One kind of step, as a module and as a function or method."""

    modules: tuple[type[nn.Module], ...]
    names: set[str]


_CONV = _Kind((conv._ConvNd, BinaryConv2d), {f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)})
_LINEAR = _Kind((nn.Linear, BinaryLinear), {"linear"})
_NORM = _Kind((batchnorm._BatchNorm,), {"batch_norm"})
_ADD = _Kind((), {"add", "add_", "iadd"})
_RELU = _Kind((nn.ReLU, nn.ReLU6), {"relu", "relu_", "relu6"})
_ONE_SIGN = _Kind(
    (nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Softmax, nn.Softmax2d, nn.LogSigmoid),
    {"sigmoid", "sigmoid_", "hardsigmoid", "softplus", "softmax", "logsigmoid", "log_softmax"}
    | {"abs", "exp", "sqrt", "square"},
)
# What hands signs on: a value that is never negative stays so.
_PASSING = _Kind(
    (
        *(pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveMaxPoolNd, pooling._AdaptiveAvgPoolNd),
        *(dropout._DropoutNd, nn.Identity, nn.Flatten, nn.Unflatten, nn.Upsample, nn.ZeroPad2d),
        *(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, _Inlined),
    ),
    {"max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d", "mean", "amax"}
    | {"dropout", "dropout_", "dropout2d", "dropout2d_", "feature_dropout", "stochastic_depth"}
    | {"flatten", "unflatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze"}
    | {"cat", "concat", "concatenate", "stack", "chunk", "split", "tensor_split", "unbind", "getitem"}
    | {"pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "interpolate", "pad"}
    | {"contiguous", "clone", "to", "float"},
)


def _inputs(node: fx.Node) -> list[fx.Node]:
    """The nodes in a step's first argument."""
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    return [n for n in (first if isinstance(first, (list, tuple)) else [first]) if isinstance(n, fx.Node)]


def _padding(m: nn.Conv2d) -> tuple[int, int] | None:
    """(vertical, horizontal) in pixels; None where 'same' needs more on one side than on the other."""
    if not isinstance(m.padding, str):
        return m.padding[0], m.padding[1]
    if m.padding == "valid":
        return 0, 0
    total = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
    return None if any(t % 2 for t in total) else (total[0] // 2, total[1] // 2)


class _Net:
    """A traced copy of a network, and the questions `binarize` asks of it. `original` is only read."""

    def __init__(self, original: nn.Module, copied: nn.Module, graph: fx.Graph) -> None:
        self.original, self.root, self.graph = dict(original.named_modules()), copied, graph
        self.modules = dict(copied.named_modules())
        self.called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
        self.attributes = {str(node.target) for node in graph.nodes if node.op == "get_attr"}

    def name(self, node: fx.Node) -> str:
        """Of the function or method a node calls; empty for a module."""
        if node.op not in ("call_function", "call_method"):
            return ""
        return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def is_a(self, node: fx.Node, kind: _Kind) -> bool:
        return isinstance(self.module(node), kind.modules) or self.name(node) in kind.names

    def path(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else f"{_owner(node)}.{node.name}()".lstrip(".")

    def change(self, node: fx.Node, action: Literal["binarised", "kept", "replaced"], reason: str) -> Change:
        path = self.path(node)
        return Change(path, self.name(node) or type(self.original[path]).__name__, action, reason)

    def weight_owners(self, node: fx.Node) -> set[str]:
        """Paths of the modules whose parameters a function call uses."""
        return {str(n.target).rpartition(".")[0] for n in node.all_input_nodes if n.op == "get_attr"}

    def in_place(self, node: fx.Node) -> bool:
        """Whether a ReLU overwrites its input."""
        if node.op == "call_module":
            return bool(getattr(self.module(node), "inplace", False))
        return self.name(node).endswith("_") or bool(node.kwargs.get("inplace", any(node.args[1:])))

    def say_aliases(self) -> None:
        """Lets what reads a value after an in-place ReLU changed it read the ReLU: the same, said openly."""
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in [n for n in order if self.is_a(n, _RELU) and self.in_place(n)]:
            for source in _inputs(node):
                for user in [u for u in source.users if order[u] > order[node]]:
                    user.replace_input_with(source, node)

    def sources(self, layer: fx.Node) -> Iterator[fx.Node]:
        """What a layer reads, back through the nodes that hand signs on."""
        todo, seen = _inputs(layer), set[fx.Node]()
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                yield node
                todo += _inputs(node) if self.is_a(node, _PASSING) or self.is_a(node, _RELU) else []

    def reaches(self, node: fx.Node, goal: _Kind, *through: _Kind) -> bool:
        """Whether the value of a node arrives at a step of one kind, through steps of other kinds only."""
        todo, seen = list(node.users), set[fx.Node]()
        while todo:
            user = todo.pop()
            if self.is_a(user, goal):
                return True
            if user not in seen and any(self.is_a(user, kind) for kind in through):
                todo += user.users
            seen.add(user)
        return False

    def is_downsample(self, node: fx.Node) -> bool:
        """1x1 with a stride, or a 1x1 shortcut beside a convolution."""
        m = self.module(node)
        if not isinstance(m, nn.Conv2d) or m.kernel_size != (1, 1):
            return False
        beside = [user for source in _inputs(node) for user in source.users if user is not node]
        return max(m.stride) > 1 or (
            self.reaches(node, _ADD, _NORM, _PASSING)
            and any(self.is_a(u, _CONV) or self.reaches(u, _CONV, _NORM, _RELU, _PASSING) for u in beside)
        )

    def roles(self, keep_first: bool, keep_last: bool, keep_downsample: bool) -> dict[str, str]:
        """Path -> why the place of a layer in the network keeps it in full precision."""
        convs = [n for n in self.graph.nodes if self.is_a(n, _CONV)]
        linears = [n for n in self.graph.nodes if self.is_a(n, _LINEAR)]
        found: dict[str, str] = {}
        if keep_downsample:
            found |= {self.path(n): "1x1 down-sampling or projection" for n in convs if self.is_downsample(n)}
        if keep_first:
            at_input = [n for n in convs if any(s.op == "placeholder" for s in self.sources(n))]
            found |= {self.path(n): "reads the network's input" for n in at_input}
            found |= {self.path(n): "the first layer" for n in (convs or linears)[:1]}
        if keep_last:
            found |= {self.path(n): "the last layer" for n in (linears or convs)[-1:]}
        return found

    def obstacle(self, path: str) -> str:
        """Why a convolution or linear layer has no binary form; empty where it has one."""
        m, inner = self.original[path], [p for p in self.attributes if p.startswith(f"{path}.")]
        for outer in [p for p in self.called if path.startswith(f"{p}.")]:
            if not isinstance(self.modules[outer], _Inlined):
                return f"inside {outer} ({type(self.modules[outer]).__name__}), which is called whole"
        if path not in self.called:
            return "its parameters are used without calling it" if inner else "not called in the forward pass"
        if type(m) not in (nn.Conv2d, nn.Linear):
            return f"only nn.Conv2d and nn.Linear have a binary form, not {type(m).__name__}"
        if inner:
            return "its parameters are also used without calling it"
        sharing = [p for p, o in self.original.items() if any(w is m.weight for w in o._parameters.values())]
        if len(sharing) > 1:
            return f"its weight is shared: {', '.join(sharing)}"
        if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
            return "it has hooks"
        if isinstance(m, nn.Conv2d) and m.padding_mode != "zeros":
            return f"padding_mode={m.padding_mode!r} has no binary form"
        if isinstance(m, nn.Conv2d) and _padding(m) is None:
            return f"padding='same' is lopsided for kernel {m.kernel_size}, dilation {m.dilation}"
        return ""


# ---- the change


def _binary(m: nn.Conv2d | nn.Linear, scheme: Scheme, padding_value: int) -> _BinaryLayer:
    """The binary layer that owns m's own weight and bias from now on."""
    new: _BinaryLayer
    if isinstance(m, nn.Linear):
        new = BinaryLinear(m.in_features, m.out_features, scheme=scheme)
    else:
        new = BinaryConv2d(
            m.in_channels,
            m.out_channels,
            (m.kernel_size[0], m.kernel_size[1]),
            (m.stride[0], m.stride[1]),
            _padding(m) or 0,
            (m.dilation[0], m.dilation[1]),
            m.groups,
            padding_value=padding_value,
            scheme=scheme,
        )
    new = new.to(device=m.weight.device, dtype=m.weight.dtype)
    new.weight, new.bias = cast(nn.Parameter, m.weight), cast("nn.Parameter | None", m.bias)
    return new.train(m.training)


def _resolve(model: nn.Module, keep: Iterable[str]) -> tuple[set[str], set[str]]:
    """The paths of the named modules, and those of the named modules and all inside them."""
    known = {name: m for name, m in model.named_modules(remove_duplicate=False) if name}
    path_of = {id(m): path for path, m in model.named_modules()}
    named: set[str] = set()
    inside: set[str] = set()
    for name in [keep] if isinstance(keep, str) else keep:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"keep must name submodules of {type(model).__name__}, got {name!r}{hint}")
        named.add(path_of[id(known[name])])
        inside |= {path_of[id(m)] for m in known[name].modules()}
    return named, inside


def _replace_relu(net: _Net, node: fx.Node) -> None:
    with net.graph.inserting_after(node):
        new = net.graph.call_function(F.hardtanh, tuple(_inputs(node)), {"inplace": net.in_place(node)})
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    net.graph.erase_node(node)


def _finish(net: _Net, model: nn.Module) -> fx.GraphModule:
    """The graph module, with the network's name, modes and plain attributes (`input_shape`, `head`, ...)."""
    called = {node.target for node in net.graph.nodes if node.op == "call_module"}
    for path in net.called - called:  # ReLUs that no call is left of
        owner, _, name = path.rpartition(".")
        delattr(net.root.get_submodule(owner), name)
    net.graph.lint()
    result = fx.GraphModule(net.root, net.graph, class_name=type(model).__name__)
    classes = [c for c in reversed(type(model).__mro__) if issubclass(c, nn.Module) and c is not nn.Module]
    attributes = {k: v for owner in (*classes, model) for k, v in vars(owner).items()}
    carried = {k: v for k, v in attributes.items() if _is_plain(v) and k[0] != "_" and not hasattr(result, k)}
    plain = copy.deepcopy(carried)
    # The place torch.fx reads when it copies a graph module (for an average of the weights, say).
    result.meta["_user_preserved_attributes"] = plain
    for k, v in plain.items():
        setattr(result, k, v)
    for path, m in result.named_modules():
        m.training = net.original[path].training if path in net.original else m.training
    return result


def binarize(
    model: nn.Module,
    scheme: str | Scheme = "recu",
    *,
    padding_value: int = 0,
    keep_first: bool = True,
    keep_last: bool = True,
    keep_downsample: bool = True,
    keep: Iterable[str] = (),
) -> Binarized:
    """A binary copy of a network, and a report of what was changed; the network itself is left alone.

    Layers: nn.Conv2d becomes `BinaryConv2d`, nn.Linear `BinaryLinear`; the weight becomes the latent weight,
    the bias stays. Kept in full precision, unless asked otherwise: the first convolution in the order of
    execution and any other that reads the network's input; the last linear layer (without convolutions the
    first linear layer too, without linear layers the last convolution); 1x1 convolutions that have a stride
    or project a shortcut. Kept always: layers named in `keep` or inside a module named there, and what has
    no binary form or is not called as a module (subclasses, shared weights, other padding modes than zeros,
    the inside of nn.MultiheadAttention, ...); the report says why. No BatchNorm is added: each binary layer
    wants one after it.

    Activations: ReLU and ReLU6, as modules or functions, become hardtanh where a binary layer reads them
    directly or through pooling, dropout, reshaping or concatenation: all signs of a ReLU's output are +1.
    A ReLU whose own name is in `keep` stays; that, and other activations of one sign, are warned about in
    the report.

    The result is a torch.fx GraphModule, since one ReLU module is often called in several places of which
    only some feed a binary layer: the decision belongs to the call. Parameters keep their names (the
    binarisers' own join them), forward hooks on blocks still see their outputs, and plain attributes such
    as `input_shape` are carried over; methods are not, nor children of the network that its forward never
    calls. Arguments of forward whose default is a number, a string or None are fixed at it and gone.

    A network that torch.fx cannot trace comes back as an unchanged copy, with a UserWarning and
    ``report.traced`` False. Where nothing was binarised there is a UserWarning too. Raises ValueError on an
    unknown scheme, on a padding_value other than -1, 0 or 1, and on a name in `keep` that does not exist.
    """
    scheme = as_scheme(scheme)
    if padding_value not in (-1, 0, 1):
        raise ValueError(f"padding_value must be -1, 0 or 1, got {padding_value}")
    named, inside = _resolve(model, keep)
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    copied, twin = copy.deepcopy(model), copy.deepcopy(model, {id(p): p for p in model.parameters()})
    try:
        graph = _trace(copied, twin)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        kind = type(model).__name__
        warnings.warn(f"nothing binarised, {kind} is not traceable: {reason}; {_WAY_OUT}", stacklevel=2)
        return Binarized(copy.deepcopy(model), Report([], [], weights, 0, traced=False, reason=reason))
    net = _Net(model, copied, graph)
    net.say_aliases()

    roles = net.roles(keep_first, keep_last, keep_downsample)
    kept = {  # path -> why, empty for the layers to binarise
        path: "named in keep" if path in inside else roles.get(path) or net.obstacle(path)
        for path, m in net.original.items()
        if isinstance(m, (conv._ConvNd, nn.Linear))
    }
    layers = {path: m for path, m in net.modules.items() if isinstance(m, (nn.Conv2d, nn.Linear)) and not kept[path]}
    binary = {path for path, m in net.modules.items() if path in layers or isinstance(m, _BinaryLayer)}

    feeds: dict[fx.Node, str] = {}  # ReLU -> a binary layer that reads it
    notes: list[str] = []
    for layer in [node for node in graph.nodes if net.path(node) in binary]:
        for source in net.sources(layer):
            where = net.path(source)
            if source.op == "placeholder":
                notes.append(f"{layer.target} reads the network's input: all signs are +1 if it is never negative")
            elif net.is_a(source, _RELU) and where not in named:
                feeds.setdefault(source, str(layer.target))
            elif net.is_a(source, _RELU) or net.is_a(source, _ONE_SIGN):
                notes.append(f"{layer.target} reads {where}, whose values all have the same sign")

    changes: list[Change] = []
    made = f"{scheme.weight} weights, {scheme.activation} activations"
    for node in list(graph.nodes):
        path = net.path(node)
        if path in kept:
            changes.append(net.change(node, "kept" if kept[path] else "binarised", kept[path] or made))
        elif path in binary:
            changes.append(net.change(node, "kept", "already binary"))
        elif node in feeds:
            changes.append(net.change(node, "replaced", f"hardtanh: feeds {feeds[node]}"))
            _replace_relu(net, node)
        elif net.is_a(node, _RELU):
            why = "named in keep" if path in named else "feeds no binary layer"
            changes.append(net.change(node, "kept", why))
        elif (net.is_a(node, _CONV) or net.is_a(node, _LINEAR)) and not net.weight_owners(node) & kept.keys():
            changes.append(net.change(node, "kept", "called as a function, not as a module"))
    for path in [p for p in kept if p not in net.called]:
        changes.append(Change(path, type(net.original[path]).__name__, "kept", kept[path]))
    for path, m in layers.items():
        copied.set_submodule(path, _binary(m, scheme, padding_value))

    result = _finish(net, model)
    binary_weights = sum(m.weight.numel() for m in result.modules() if isinstance(m, _BinaryLayer))
    if not any(change.action == "binarised" for change in changes):
        warnings.warn(f"nothing in {type(model).__name__} was binarised; the report says why", stacklevel=2)
    changes, notes = list(dict.fromkeys(changes)), list(dict.fromkeys(notes))
    return Binarized(result, Report(changes, notes, weights, binary_weights))
