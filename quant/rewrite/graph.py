"""A network traced by torch.fx: what kinds of operation its nodes are, what they read, and which have a binary form."""

from __future__ import annotations

from typing import NamedTuple

from torch import fx, nn
from torch.nn.modules import batchnorm, conv, dropout, pooling

from bnn_itrd.quant.layers import BinaryConv2d, BinaryLinear
from bnn_itrd.quant.rewrite.report import Action, Change
from bnn_itrd.quant.rewrite.tracing import Inlined, owner_path

__all__ = [
    "ACTIVATION",
    "ADD",
    "CONV",
    "DIV",
    "LINEAR",
    "MIXING",
    "MUL",
    "NORM",
    "NORMS",
    "PASSING",
    "POOLS",
    "Kind",
    "Net",
    "inputs",
    "symmetric_padding",
]


class Kind(NamedTuple):
    """A kind of operation, e.g. convolutions, as the module classes and function or method names that belong to it."""

    modules: tuple[type[nn.Module], ...]
    names: set[str]


CONV = Kind((conv._ConvNd, BinaryConv2d), {f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)})
LINEAR = Kind((nn.Linear, BinaryLinear), {"linear"})
NORM = Kind((batchnorm._BatchNorm,), {"batch_norm"})
NORMS = Kind(
    (batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"},
)
# Other operations that multiply with weights; a function counts only where it uses a parameter of the network.
MIXING = Kind((nn.MultiheadAttention, nn.RNNBase, nn.Bilinear), {"matmul", "mm", "bmm", "einsum", "bilinear"})
# Operations that read the shape of a tensor, not its values.
FORM = Kind((), {"size", "dim", "numel", "nelement"})
_FORMS = ("shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad")
ADD = Kind((), {"add", "add_", "iadd"})
MUL = Kind((), {"mul", "mul_", "imul", "multiply"})
DIV = Kind((), {"div", "div_", "truediv", "itruediv", "divide"})
# Activations that do not work in front of a sign. The signs of a ReLU's output are all +1. For large negative inputs,
# the outputs of the others are rounded to -0.0, whose sign is +1; from which input on, differs between runtimes.
ACTIVATION = Kind(
    (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish),
    {"relu", "relu_", "relu6", "silu", "gelu", "mish", "hardswish"},
)
_POOLS = (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveMaxPoolNd, pooling._AdaptiveAvgPoolNd)
# Pools, and modules that do not change values.
POOLS = Kind((*_POOLS, nn.Identity, Inlined), {"max_pool2d", "avg_pool2d"})
# Operations that preserve signs: a value that is never negative stays so.
PASSING = Kind(
    (
        *_POOLS,
        *(dropout._DropoutNd, nn.Identity, nn.Flatten, nn.Unflatten, nn.Upsample, nn.ZeroPad2d),
        *(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, Inlined),
    ),
    {"max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d", "mean", "amax"}
    | {"dropout", "dropout_", "dropout2d", "dropout2d_", "feature_dropout", "stochastic_depth"}
    | {"flatten", "unflatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze"}
    | {"cat", "concat", "concatenate", "stack", "chunk", "split", "tensor_split", "unbind", "getitem"}
    | {"pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "interpolate", "pad"}
    | {"contiguous", "clone", "to", "float", "expand", "expand_as", "repeat", "tile"}
    | {"roll", "flip", "movedim", "narrow", "select", "index_select", "swapaxes"},
)

_KEEPS_CHANNELS = (*_POOLS, dropout._DropoutNd, nn.Identity, Inlined)


def inputs(node: fx.Node) -> list[fx.Node]:
    """Returns the nodes in the first argument of a node, which may be a list, as in torch.cat."""
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    return [n for n in (first if isinstance(first, (list, tuple)) else [first]) if isinstance(n, fx.Node)]


def symmetric_padding(m: nn.Conv2d) -> tuple[int, int] | None:
    """Returns the (vertical, horizontal) padding in pixels; None where 'same' pads one side more than the other."""
    if not isinstance(m.padding, str):
        return m.padding[0], m.padding[1]
    if m.padding == "valid":
        return 0, 0
    total = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
    return None if any(t % 2 for t in total) else (total[0] // 2, total[1] // 2)


class Net:
    """A traced copy of a network, with the questions that `binarize` asks about its nodes.

    original: the network, which does not change; copied: its copy, which will become binary; graph: the copy's graph.
    """

    def __init__(self, original: nn.Module, copied: nn.Module, graph: fx.Graph) -> None:
        self.original, self.root, self.graph = dict(original.named_modules()), copied, graph
        self.modules = dict(copied.named_modules())
        self.called = {str(node.target) for node in graph.nodes if node.op == "call_module"}
        self.attributes = {str(node.target) for node in graph.nodes if node.op == "get_attr"}

    def name(self, node: fx.Node) -> str:
        """Returns the name of the function or method that a node calls; empty for a module."""
        if node.op not in ("call_function", "call_method"):
            return ""
        return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def is_a(self, node: fx.Node, kind: Kind) -> bool:
        return isinstance(self.module(node), kind.modules) or self.name(node) in kind.names

    def is_layer(self, node: fx.Node) -> bool:
        """Returns whether a node multiplies its input with learned weights."""
        if self.is_a(node, MIXING):
            return node.op == "call_module" or any(n.op == "get_attr" for n in node.all_input_nodes)
        return self.is_a(node, CONV) or self.is_a(node, LINEAR)

    def values(self, node: fx.Node) -> list[fx.Node]:
        """Returns the nodes whose values a node computes with; none where it only reads a shape, dtype or device."""
        form = self.is_a(node, FORM) or (self.name(node) == "getattr" and node.args[1] in _FORMS)
        return [] if form else node.all_input_nodes

    def path(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else f"{owner_path(node)}.{node.name}()".lstrip(".")

    def change(self, node: fx.Node, action: Action, reason: str) -> Change:
        path = self.path(node)
        return Change(path, self.name(node) or type(self.original[path]).__name__, action, reason)

    def weight_owners(self, node: fx.Node) -> set[str]:
        """Returns the paths of the modules whose parameters a call of a function, such as F.conv2d, uses."""
        return {str(n.target).rpartition(".")[0] for n in node.all_input_nodes if n.op == "get_attr"}

    def in_place(self, node: fx.Node) -> bool:
        """Returns whether an activation overwrites its input."""
        if node.op == "call_module":
            return bool(getattr(self.module(node), "inplace", False))
        return self.name(node).endswith("_") or bool(node.kwargs.get("inplace", any(node.args[1:])))

    def resolve_aliases(self) -> None:
        """Makes nodes after an in-place activation read its output, where the graph says its overwritten input."""
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        for node in [n for n in order if self.is_a(n, ACTIVATION) and self.in_place(n)]:
            for source in inputs(node):
                for user in [u for u in source.users if order[u] > order[node]]:
                    user.replace_input_with(source, node)

    def channels(self, node: fx.Node) -> int | None:
        """Returns the number of channels c of a node's value (n, c, ...); None where no layer in front of it has it."""
        for _ in self.graph.nodes:
            m = self.module(node)
            for name in ("num_features", "out_channels"):  # not out_features, whose axis is not known
                if isinstance(getattr(m, name, None), int):
                    return int(getattr(m, name))
            through = isinstance(m, _KEEPS_CHANNELS) or self.is_a(node, ADD)
            if not (through or self.is_a(node, ACTIVATION)) or not inputs(node):
                return None
            node = inputs(node)[0]
        return None

    def reaches(self, node: fx.Node, goal: Kind, *through: Kind) -> bool:
        """Returns whether a node's value reaches a node of the kind `goal` through nodes of the other kinds only."""
        todo, seen = list(node.users), set[fx.Node]()
        while todo:
            user = todo.pop()
            if self.is_a(user, goal):
                return True
            if user not in seen and any(self.is_a(user, kind) for kind in through):
                todo += user.users
            seen.add(user)
        return False

    def obstacle(self, path: str) -> str:
        """Returns why a convolution or linear layer has no binary form; empty where it has one."""
        m, inner = self.original[path], [p for p in self.attributes if p.startswith(f"{path}.")]
        for outer in [p for p in self.called if path.startswith(f"{p}.")]:
            if not isinstance(self.modules[outer], Inlined):
                return f"inside {outer} ({type(self.modules[outer]).__name__}), which is one call in the graph"
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
        if isinstance(m, nn.Conv2d) and symmetric_padding(m) is None:
            return f"padding='same' is not symmetric for kernel {m.kernel_size}, dilation {m.dilation}"
        return ""
