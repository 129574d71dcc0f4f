"""`canonical` traces a network to ONNX with one node per binary layer: the canonical graph that all exporters use."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bnn_itrd.export.runtime.errors import ExportError
from bnn_itrd.export.tracing.network_copy import ModuleStack, copy_for_export, unwrap
from bnn_itrd.export.tracing.symbolic_layers import replace_binary_layers, run_and_check

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["IR_VERSION", "OPSET", "canonical", "check_input_shape", "random_images", "traced_once"]

# Every onnxruntime from 1.20 on loads files of these versions; onnx's own defaults are too new for 1.20.
IR_VERSION = 8
OPSET = 18

_ADVICE = "replace it by operations that ONNX has, or compute it outside the network"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Returns a context in which the progress lines, warnings and logs of torch's exporter are not shown."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def check_input_shape(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Returns the shape of one image without the batch axis: `input_shape`, or ``model.input_shape`` if that is None.

    Raises ValueError if the model has no such attribute either, or a size is below 1.
    """
    shape = input_shape if input_shape is not None else getattr(model, "input_shape", None)
    if shape is None:
        raise ValueError(f"{type(model).__name__} has no input_shape: pass input_shape=(c, h, w)")
    shape = tuple(int(size) for size in shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape must be the sizes of one image, each >= 1, got {shape}")
    return shape


def random_images(n: int, shape: Sequence[int]) -> Tensor:
    """Returns n standard normal images (n, *shape), the same at every call; leaves torch's global generator alone."""
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(0))


def _is_mask(tensor: Tensor) -> bool:
    """Returns whether a tensor is a buffer that holds only 0 and minus infinity, as an attention mask does."""
    return not isinstance(tensor, nn.Parameter) and bool(((tensor == 0) | (tensor == -torch.inf)).all())


def _check_finite(model: nn.Module) -> None:
    """Raises ExportError if a weight or a buffer, except an attention mask, holds a value that is not finite."""
    # Without this check nobody would notice, because the sign of NaN is -1.
    for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not bool(tensor.isfinite().all()) and not _is_mask(tensor):
            raise ExportError(f"{path} holds values that are not finite in float32: train the network again")


def _first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its class if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _takes_any_number(model: nn.Module) -> bool:
    """Returns whether the first parameter of the network's forward is ``*args``."""
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    return first is not None and first.kind is inspect.Parameter.VAR_POSITIONAL


def _capture(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Returns the network as traced by ``torch.export`` for any batch size. Raises ExportError if that fails."""
    stack = ModuleStack(model)
    try:
        with _quiet():
            return torch.export.export(
                model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
    except Exception as error:
        text = str(error)
        where = stack.where(model)
        if "data-dependent" in text:
            what = "branches on the values of a tensor (if, while, .item())"
            advice = "write it with torch.where, or as a loop of fixed length"
        elif "onstraints violated" in text:
            what = "fixes the batch size"
            advice = "reshape with -1 or x.shape[0] for the batch, not with a number"
        elif _takes_any_number(model):
            what = f"has the signature forward{inspect.signature(model.forward)}, which cannot be traced"
            advice = "give the images an argument of their own, as in forward(self, x)"
        else:
            what, advice = "cannot be traced", _ADVICE
        raise ExportError(f"{where} {what}: {advice} ({_first_line(error)})") from error
    finally:
        stack.remove()


def _find_operation(program: torch.export.ExportedProgram, error: BaseException) -> tuple[str, str]:
    """Returns (module, operation) at which torch's ONNX exporter failed; each is "" if the error does not tell it."""
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(str(cause))
        cause = cause.__cause__
    found = re.search(r"target=torch\.ops\.([\w.]+)", "\n".join(messages))
    if found is None:
        return "", ""
    operation = found.group(1).rsplit(".", 1)[0]
    # The exporter names the operation's decomposed form, such as aten._linalg_svd for aten.linalg_svd.
    core = operation.split(".")[-1].strip("_")
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    exact = [node for node in calls if str(node.target).startswith(f"{operation}.")]
    for node in exact or [node for node in calls if core in str(node.target)]:
        modules = list((node.meta.get("nn_module_stack") or {}).values())
        if modules:
            path, kind = modules[-1][0], modules[-1][1]
            kind = kind if isinstance(kind, str) else kind.__name__
            return f"{path or 'the network'} ({kind.rsplit('.', 1)[-1]})", operation
    return "", operation


def _translate(program: torch.export.ExportedProgram) -> ir.Model:
    """Returns a traced network as an ONNX graph. Raises ExportError on an operation that ONNX does not have."""
    try:
        with _quiet():
            result = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                verbose=False,
                optimize=False,
            )
    except Exception as error:
        where, operation = _find_operation(program, error)
        if not operation:
            raise ExportError(f"torch.onnx.export failed: {_first_line(_root_cause(error))}") from error
        raise ExportError(f"{where or 'the network'} uses {operation}, which ONNX does not have: {_ADVICE}") from error
    if result is None:
        raise ExportError("torch.onnx.export returned no graph: try another version of torch, or report this network")
    return result.model


def _note_paths(model: ir.Model) -> None:
    """Sets each node's metadata entry ``path`` to the path of its PyTorch module, which torch's exporter recorded."""
    for node in model.graph:
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes")
        if scopes:
            with contextlib.suppress(ValueError, SyntaxError, IndexError, TypeError):
                node.metadata_props["path"] = str(ast.literal_eval(scopes)[-2])


def _name_batch(model: ir.Model) -> None:
    """Names the batch axis of every tensor ``batch`` and removes the names of all other unknown sizes."""
    import onnx_ir as ir

    graph = model.graph
    free = graph.inputs[0].shape
    names = {} if free is None else {str(free[0]): "batch"}
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if value.shape is not None:
            value.shape = ir.Shape([s if isinstance(s, int) else names.get(str(s)) for s in value.shape])


def _simplify(model: ir.Model) -> None:
    """Computes constant parts of the graph in advance, mostly shapes, and removes what is then unused.

    The optimiser of torch's exporter is not used because it would also fold BatchNorm into convolutions.
    """
    import onnxscript.optimizer
    from onnx_ir.passes import common

    from bnn_itrd.export import graph
    from bnn_itrd.export.tracing.cleanup import drop_zero_biases, fix_reshapes

    common.InlinePass()(model)
    onnxscript.optimizer.fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    fix_reshapes(model)
    drop_zero_biases(model)
    graph.remove_unused(model)


def _finish(model: ir.Model, shape: tuple[int, ...]) -> None:
    """Turns the graph of torch's exporter into the canonical graph, in place. shape: of one image."""
    from bnn_itrd.export.graph import clean

    _note_paths(model)
    _simplify(model)
    _name_batch(model)
    model.graph.name = "network"
    clean(model)
    model.metadata_props.clear()
    model.metadata_props["input_shape"] = str(list(shape))
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "bnn_itrd", None


# (network, shape, graph) of the last trace inside a `traced_once` block; None outside.
_TRACED: ContextVar[list[tuple[nn.Module, tuple[int, ...], ir.Model]] | None] = ContextVar("traced", default=None)


@contextlib.contextmanager
def traced_once() -> Iterator[None]:
    """Returns a context in which a network is traced only once, however many exporters are called.

    Use it to write several files of one network. The network must not change inside the ``with`` block.

    >>> with traced_once():
    ...     first, second = canonical(network), canonical(network)  # the second call copies the graph of the first
    >>> len(first.graph) == len(second.graph)
    True
    """
    token = _TRACED.set([])
    try:
        yield
    finally:
        _TRACED.reset(token)


def canonical(model: nn.Module, *, input_shape: Sequence[int] | None = None) -> ir.Model:
    """Returns the network as an ONNX graph (opset 18), ``images`` (batch, *input_shape) -> ``logits``, not optimised.

    A binary layer becomes the nodes of its binariser's `presign` (float operations in front of the sign, if any), then
    ``bnn_itrd::Sign(x)`` (+1 for x >= 0, else -1), and one of

    - ``BinaryConv2d(a, signs int8 (o, i/g, kh, kw), scale (o,), [offset (o,)], [bias (o,)])`` with attributes
      strides, pads (top, left, bottom, right), dilations, group, padding_value, path;
    - ``BinaryLinear(a, signs int8 (o, c), scale (o,), [offset (o,)], [bias (o,)])`` with attribute path.

    An integer quantiser becomes ``Quant(x, scale ())`` with attributes bits, narrow (the range is symmetric), path. It
    computes scale * round(clip(x / scale)), clipped to the signed integers of `bits` bits, with ties rounded to even. x
    is an activation, or a weight as floats.
    All other nodes are standard ONNX. A node's metadata entry ``path`` is the path of its PyTorch module. The network
    is copied before (see `copy_for_export`), so `model` is not changed.
    Raises ValueError if the input shape is not known. Raises ExportError, with the module's path, on a module that
    cannot be exported, a network that returns more than one tensor, and weights or buffers that are not finite.

    >>> [node.op_type for node in canonical(network, input_shape=(3, 4, 4)).graph]
    ['Sign', 'BinaryConv2d', 'Reshape', 'Gemm']
    """
    import onnx_ir as ir

    network = unwrap(model)
    shape = check_input_shape(network, input_shape)
    traced = _TRACED.get()
    for known, size, graph in traced or ():
        if known is network and size == shape:
            return ir.from_proto(ir.to_proto(graph))
    graph = _trace(network, shape)
    if traced is not None:
        traced[:] = [(network, shape, ir.from_proto(ir.to_proto(graph)))]
    return graph


def _trace(model: nn.Module, shape: tuple[int, ...]) -> ir.Model:
    """Returns the canonical graph of a network, always traced anew. shape: of one image."""
    network = copy_for_export(model)
    _check_finite(network)
    # The batch has two images because the tracer would take a batch size of 1 for a constant.
    example = random_images(2, shape)
    run_and_check(network, example)
    network = replace_binary_layers(network)
    graph = _translate(_capture(network, example))
    _finish(graph, shape)
    return graph
