"""Makes a binary copy of an ordinary network: `binarize(model)`."""

from __future__ import annotations

import copy
import difflib
import re
import warnings
from collections.abc import Iterable
from typing import cast

import torch.nn.functional as F
from torch import fx, nn

from bnn_itrd.quant.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from bnn_itrd.quant.parts import part_name
from bnn_itrd.quant.rewrite.graph import ACTIVATION, CONV, LINEAR, Net, symmetric_padding
from bnn_itrd.quant.rewrite.plan import Plan, make_plan
from bnn_itrd.quant.rewrite.report import WAY_OUT, Binarized, Change, Report
from bnn_itrd.quant.rewrite.roles import find_roles
from bnn_itrd.quant.rewrite.tracing import SCALARS, owner_path, trace
from bnn_itrd.quant.rewrite.verdict import NOTHING
from bnn_itrd.quant.scheme import AnyScheme, Scheme, as_scheme

__all__ = ["binarize"]


def _binary(m: nn.Conv2d | nn.Linear, scheme: Scheme, padding_value: int) -> BinaryLayer:
    """Returns a binary layer of the same sizes as m, with m's own weight and bias parameters."""
    new: BinaryLayer
    if isinstance(m, nn.Linear):
        new = BinaryLinear(m.in_features, m.out_features, scheme=scheme)
    else:
        new = BinaryConv2d(
            m.in_channels,
            m.out_channels,
            (m.kernel_size[0], m.kernel_size[1]),
            (m.stride[0], m.stride[1]),
            symmetric_padding(m) or 0,
            (m.dilation[0], m.dilation[1]),
            m.groups,
            padding_value=padding_value,
            scheme=scheme,
        )
    new = new.to(device=m.weight.device, dtype=m.weight.dtype)
    new.weight, new.bias = cast(nn.Parameter, m.weight), cast("nn.Parameter | None", m.bias)
    new.weight_binarizer.initialise(new.weight)
    return new.train(m.training)


def _resolve(model: nn.Module, keep: Iterable[str]) -> tuple[set[str], set[str]]:
    """Returns the paths of the modules named in `keep`, and the paths of these and all modules inside them.

    Raises ValueError where the model has no module of that name.
    """
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


def _traced(model: nn.Module) -> tuple[Net | None, str]:
    """Returns a copy of the network with its torch.fx graph and "", or None and why torch.fx cannot trace it."""
    copied, second = copy.deepcopy(model), copy.deepcopy(model, {id(p): p for p in model.parameters()})
    try:
        graph = trace(copied, second)
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    net = Net(model, copied, graph)
    net.resolve_aliases()
    return net, ""


def _replace_activation(net: Net, node: fx.Node, read: fx.Node, scheme: Scheme) -> tuple[str, fx.Node]:
    """Replaces an activation's node by the scheme's nonlinearity, applied to the node `read`, or by hardtanh.

    Hardtanh is used where the nonlinearity needs a number of channels that cannot be found. Returns the name of the new
    activation, and its node.
    """
    wanted = part_name(scheme.nonlinearity)
    channels = None if wanted == "hardtanh" else net.channels(read)
    in_place = net.is_a(node, ACTIVATION) and net.in_place(node)
    with net.graph.inserting_after(node):
        if wanted == "hardtanh" or (channels is None and scheme.nonlinearity_needs_channels):
            name = "hardtanh"
            new = net.graph.call_function(F.hardtanh, (read,), {"inplace": in_place})
        else:
            name = wanted
            like = next(iter(net.root.parameters()))
            made = scheme.make_nonlinearity(channels).to(device=like.device, dtype=like.dtype)
            owner = str(node.target).rpartition(".")[0] if node.op == "call_module" else owner_path(node)
            # A user's own nonlinearity is called module:Name; only Name becomes part of its parameters' names.
            short = re.sub(r"\W", "_", name.rpartition(":")[2])
            path = f"{owner}.{short}_{node.name}".lstrip(".")
            net.root.set_submodule(path, made.train(net.root.training))
            new = net.graph.call_module(path, (read,))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    useless = [node]
    for step in useless:  # with the steps of an activation such as x * sigmoid(x); the list grows during the loop
        if not step.users and step is not read:
            useless += step.all_input_nodes
            net.graph.erase_node(step)
    return name, new


def _replace_activations(net: Net, plan: Plan, scheme: Scheme) -> dict[fx.Node, str]:
    """Replaces the activations that the plan lists; returns the old node -> the name of its replacement."""
    names, stands_for = dict[fx.Node, str](), dict[fx.Node, fx.Node]()
    for node in [n for n in net.graph.nodes if n in plan.feeds]:
        read = plan.feeds[node].applied_to
        names[node], stands_for[node] = _replace_activation(net, node, stands_for.get(read, read), scheme)
    return names


def _carry_out(net: Net, plan: Plan, named: set[str], scheme: Scheme) -> list[Change]:
    """Replaces the planned activations, and returns the report's row for each layer and activation of the network.

    named: the paths in `keep`. Where hardtanh had to be used, it adds a warning to ``plan.notes``.
    """
    kept, changes, steps = plan.kept, list[Change](), list(net.graph.nodes)
    made = f"{part_name(scheme.weight)} weights, {part_name(scheme.activation)} activations"
    nonlinearity = part_name(scheme.nonlinearity)
    rows = {node: net.change(node, "replaced", "") for node in plan.feeds}
    put, left = _replace_activations(net, plan, scheme), {*net.graph.nodes}
    for node in [n for n in steps if n in left or n in put]:
        path = net.path(node)
        if path in kept:
            changes.append(net.change(node, "kept" if kept[path] else "binarised", kept[path] or made))
        elif path in plan.binary:
            changes.append(net.change(node, "kept", "already binary"))
        elif node in put:
            changes.append(rows[node]._replace(reason=f"{put[node]}: feeds {plan.feeds[node].layer}"))
            if put[node] != nonlinearity:
                plan.notes.append(f"{path} became {put[node]}: {nonlinearity} needs a number of channels, unknown here")
        elif net.is_a(node, ACTIVATION):
            why = "named in keep" if path in named else "feeds no binary layer"
            changes.append(net.change(node, "kept", why))
        elif (net.is_a(node, CONV) or net.is_a(node, LINEAR)) and not net.weight_owners(node) & kept.keys():
            changes.append(net.change(node, "kept", "called as a function, not as a module"))
    for path in [p for p in kept if p not in net.called]:
        changes.append(Change(path, type(net.original[path]).__name__, "kept", kept[path]))
    return changes


def _is_plain(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(v) for v in value)
    return isinstance(value, SCALARS)


def _finish(net: Net, model: nn.Module) -> fx.GraphModule:
    """Returns a GraphModule with the network's class name, training modes and plain attributes (`input_shape`, ...)."""
    called = {node.target for node in net.graph.nodes if node.op == "call_module"}
    for path in net.called - called:  # activation modules that have been replaced
        owner, _, name = path.rpartition(".")
        delattr(net.root.get_submodule(owner), name)
    net.graph.lint()
    result = fx.GraphModule(net.root, net.graph, class_name=type(model).__name__)
    classes = [c for c in reversed(type(model).__mro__) if issubclass(c, nn.Module) and c is not nn.Module]
    attributes = {k: v for owner in (*classes, model) for k, v in vars(owner).items()}
    carried = {k: v for k, v in attributes.items() if _is_plain(v) and k[0] != "_" and not hasattr(result, k)}
    plain = copy.deepcopy(carried)
    # torch.fx copies these attributes when it copies a graph module (for an average of the weights, for instance).
    result.meta["_user_preserved_attributes"] = plain
    for k, v in plain.items():
        setattr(result, k, v)
    for path, m in result.named_modules():
        m.training = net.original[path].training if path in net.original else m.training
    return result


def _weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.dim() > 1)


def _unchanged(model: nn.Module, reason: str) -> Binarized:
    """Returns an unchanged copy of a network that cannot be traced; warns at the line that called `binarize`."""
    kind = type(model).__name__
    warnings.warn(f"nothing was binarised, because torch.fx cannot trace {kind}: {reason}; {WAY_OUT}", stacklevel=3)
    return Binarized(copy.deepcopy(model), Report([], [], [], _weights(model), 0, NOTHING, traced=False, reason=reason))


def _thaw(network: nn.Module) -> list[str]:
    """Makes all parameters trainable; returns a note for the report if some were not."""
    frozen = {path: p for path, p in network.named_parameters() if not p.requires_grad and p.is_floating_point()}
    for p in frozen.values():
        p.requires_grad_(True)
    if not frozen:
        return []
    names = ", ".join([*frozen][:3]) + (", ..." if len(frozen) > 3 else "")
    return [f"frozen in the network (requires_grad False), trainable in this copy: {len(frozen)} parameters, {names}"]


def _rewritten(
    net: Net, model: nn.Module, plan: Plan, named: set[str], scheme: Scheme, padding_value: int
) -> Binarized:
    """Makes the planned changes; where nothing becomes binary, it warns at the line that called `binarize`."""
    changes = _carry_out(net, plan, named, scheme)
    for path, m in plan.layers.items():
        net.root.set_submodule(path, _binary(m, scheme, padding_value))
    result = _finish(net, model)
    notes = list(dict.fromkeys([*plan.notes, *_thaw(result)]))
    weights, binary = _weights(model), sum(m.weight.numel() for m in result.modules() if isinstance(m, BinaryLayer))
    if not any(change.action == "binarised" for change in changes):
        warnings.warn(f"nothing in {type(model).__name__} was binarised; the report says why", stacklevel=3)
    return Binarized(result, Report(list(dict.fromkeys(changes)), notes, plan.unknown, weights, binary, plan.verdict))


def binarize(
    model: nn.Module,
    scheme: AnyScheme = "recu",
    *,
    padding_value: int = 0,
    keep_first: bool = True,
    keep_last: bool = True,
    keep_downsample: bool = True,
    keep_depthwise: bool = True,
    keep_squeeze: bool = True,
    keep: Iterable[str] = (),
) -> Binarized:
    """Returns a binary copy of a network and a report of the changes; the network itself is not changed.

    Each nn.Conv2d becomes a `BinaryConv2d` and each nn.Linear a `BinaryLinear`, with the old weight as latent weight.
    Each ``keep_*`` argument, in this order, leaves layers in full precision: the first convolution (or linear layer)
    and all that read the network's input; the layers whose output reaches the network's output through no other layer;
    1x1 convolutions with a stride or on a shortcut; depthwise convolutions; the layers of squeeze-and-excite gates.
    Layers also stay that are in `keep` or inside a module named there, or have no binary form: subclasses, shared
    weights, padding modes other than zeros, the inside of nn.MultiheadAttention and the like. The report gives each
    reason. No BatchNorm is added, though each binary layer should be followed by one.

    ReLU, ReLU6, SiLU, GELU, Mish and Hardswish become the scheme's nonlinearity, by default hardtanh, where a binary
    layer reads them directly or through pooling, dropout, reshaping, concatenation or a factor that is never negative.
    They may be modules, functions or written out, as x * sigmoid(x). They are replaced because a ReLU's output has no
    negative sign, and the others round to -0.0, whose sign is +1, for large negative inputs. A nonlinearity that is
    made for a number of channels is used only where the convolution or norm in front of it has that number.

    The report's `warnings` list layers whose input always has the same sign, `unknown` those where this could not be
    found out, and its verdict says whether the network can be expected to learn.

    The result is a torch.fx GraphModule. Parameters keep their names, forward hooks on blocks still see their outputs,
    and plain attributes such as `input_shape` are copied. Methods are not, nor are children that forward never calls.
    Arguments of forward whose default is a number, a string or None are fixed at that value and removed. All parameters
    are trainable, also those frozen in the network; each module keeps its mode.

    A network that torch.fx cannot trace is returned as an unchanged copy, with a UserWarning and ``report.traced``
    False. There is a UserWarning too where nothing was binarised. Raises ValueError on an unknown scheme, on a
    padding_value other than -1, 0 or 1, and on a name in `keep` that does not exist.

    >>> from bnn_itrd.models import resnet8
    >>> student, report = binarize(resnet8(10), "xnor")
    >>> type(student.get_submodule("layer1.0.conv1")).__name__, report.verdict[:3]
    ('BinaryConv2d', 'fit')
    """
    scheme = as_scheme(scheme)
    if padding_value not in (-1, 0, 1):
        raise ValueError(f"padding_value must be -1, 0 or 1, got {padding_value}")
    named, inside = _resolve(model, keep)
    net, reason = _traced(model)
    if net is None:
        return _unchanged(model, reason)
    roles = find_roles(
        net, keep_first=keep_first, keep_last=keep_last, keep_downsample=keep_downsample,
        keep_depthwise=keep_depthwise, keep_squeeze=keep_squeeze,
    )  # fmt: skip
    return _rewritten(net, model, make_plan(net, named, inside, roles, scheme), named, scheme, padding_value)
