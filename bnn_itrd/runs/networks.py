"""Functions that build a network from a configuration, or from its name in torchvision or timm."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bnn_itrd.config.addresses import LIBRARIES, call_named, import_address, is_address
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.models import MODELS, observe
from bnn_itrd.models.builder import Definition
from bnn_itrd.quant import BinaryConv2d, BinaryLinear, Report, Scheme, as_scheme, binarize
from bnn_itrd.quant.options import PARTS, SchemeOptions
from bnn_itrd.quant.parts import part_name
from bnn_itrd.runs.network_size import check_weights
from bnn_itrd.words import counted

__all__ = ["build", "definition_of", "own_network", "remarks", "untrained_network"]


def build(
    network: NetworkConfig,
    scheme: SchemeConfig | None,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
) -> nn.Module:
    """Builds the untrained network that a configuration describes: binary, or full precision if `scheme` is None.

    ``network.name`` is one of MODELS, ``torchvision:NAME``, ``timm:NAME``, or the address of a user's class or function
    (``mypkg.nets:make``), which is imported and called. input_shape: (c, h, w).
    Raises UserError if the name is unknown, or if the network does not have an option or cannot take the input shape.
    """
    if is_address(network.name):
        return _of_user(network, scheme, num_classes=num_classes, input_shape=input_shape)
    if network.name.partition(":")[0] in LIBRARIES:
        return _of_library(network, scheme, num_classes=num_classes, input_shape=input_shape)
    if network.name not in MODELS:
        others = [*(f"{library}:NAME" for library in LIBRARIES), "package.module:NAME"]
        raise unknown("network", network.name, [*MODELS, *others])
    options = _options(network, scheme, MODELS[network.name])
    make = functools.partial(
        MODELS[network.name], num_classes, in_channels=input_shape[0], input_shape=input_shape, **options
    )
    try:
        check_weights(make, name=network.name, width=network.width, input_shape=input_shape)
        return make()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"network {network.name}: {error}") from error


# Fields of NetworkConfig that are not passed to the function that builds the network.
_NAMES = ("name", "teacher", "teacher_shortcut", "weights")


def _options(network: NetworkConfig, scheme: SchemeConfig | None, make: Any) -> dict[str, Any]:
    """Returns keyword arguments for `make`, which builds a network. Raises UserError on an option that it lacks."""
    accepted = inspect.signature(make).parameters
    fields = [f for f in dataclasses.fields(network) if f.name not in _NAMES]
    not_accepted = [f.name for f in fields if getattr(network, f.name) != f.default and f.name not in accepted]
    if network.teacher_shortcut is not None and "shortcut" not in accepted:
        not_accepted.append("teacher_shortcut")
    if not_accepted:
        has = ", ".join(f.name for f in fields if f.name in accepted) or "none"
        raise UserError(f"network.{not_accepted[0]} is not an option of {network.name}, whose options are: {has}")
    if scheme is None:  # a teacher: the other fields are only for students
        given = {"width": network.width, "shortcut": network.teacher_shortcut}
    else:
        given = {f.name: getattr(network, f.name) for f in fields} | {"binary": _scheme(scheme)}
    return {name: value for name, value in given.items() if name in accepted}


def _scheme(config: SchemeConfig) -> Scheme:
    """Returns the `Scheme` that a configuration describes; a user's own binarisers are imported. Raises UserError."""
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(SchemeOptions)}
    for name in PARTS:
        if is_address(given[name]):
            given[name] = import_address(given[name], what=f"scheme.{name}")
    try:
        scheme = Scheme(**given)
        if isinstance(scheme.weight, str):
            # The result is not used, but making it draws random numbers. Without that, a seed would give other initial
            # weights than it gave in the runs of results/ and the README.
            scheme.make_weight(1)
    except ValueError as error:
        raise UserError(f"scheme: {error}") from error
    return scheme


def definition_of(
    model: nn.Module, *, num_classes: int, input_shape: tuple[int, int, int]
) -> tuple[NetworkConfig, SchemeConfig | None] | None:
    """Returns the (network, scheme) configuration with which `build` makes the same architecture as `model` again.

    The scheme is None for a full-precision network. Returns None if this package did not build the network, or if it
    was changed afterwards. input_shape: (c, h, w).
    """
    made = getattr(model, "definition", None)
    name = next((n for n, builder in MODELS.items() if isinstance(made, Definition) and builder == made.builder), None)
    if made is None or name is None:
        return None
    options = dict(made.options)
    binary = options.pop("binary", None)
    scheme = None
    if binary is None:
        network = NetworkConfig(name, width=options.get("width", 1.0), teacher_shortcut=options.get("shortcut"))
    else:
        network, full = NetworkConfig(name, **options), as_scheme(binary)
        values = {field.name: getattr(full, field.name) for field in dataclasses.fields(SchemeOptions)}
        parts = {part: part_name(values[part]) for part in PARTS}
        if any(":" in name and not _can_be_imported(name) for name in parts.values()):
            return None
        scheme = SchemeConfig(**{**values, **parts})
    try:
        with torch.device("meta"):
            again = build(network, scheme, num_classes=num_classes, input_shape=input_shape)
    except UserError:
        return None
    return (network, scheme) if repr(again) == repr(model) else None


def _can_be_imported(address: str) -> bool:
    """Returns whether another process can import a class by its address; False if a script or function defines it."""
    return is_address(address) and not address.startswith("__main__:")


# Networks with auxiliary classifiers (aux_logits), which return several logits in training.
_SIDE_EXITS = ("googlenet", "inception_v3")


def _of_library(
    network: NetworkConfig, scheme: SchemeConfig | None, *, num_classes: int, input_shape: tuple[int, int, int]
) -> nn.Module:
    """Builds a network of torchvision or timm, and makes it binary with `binarize` unless `scheme` is None."""
    for field in dataclasses.fields(network):
        if (
            field.name not in ("name", "teacher", "weights", "padding_value")
            and getattr(network, field.name) != field.default
        ):
            raise UserError(
                f"network.{field.name} is an option of bnn_itrd's networks; {network.name} has only padding_value"
            )
    model = untrained_network(network.name, num_classes=num_classes, in_channels=input_shape[0], side_exits=False)
    if scheme is not None:
        model = _made_binary(model, network, _scheme(scheme))
    model.input_shape = tuple(input_shape)  # type: ignore[assignment]
    return model


# How many warnings of `binarize` are shown to the user.
_SHOWN = 5

# Network that was built here -> the report of `binarize` on it.
_REPORTS: weakref.WeakKeyDictionary[nn.Module, Report] = weakref.WeakKeyDictionary()


def _made_binary(model: nn.Module, network: NetworkConfig, scheme: Scheme) -> nn.Module:
    """Makes a network binary with `binarize` and returns it; the names of its stages are kept in ``model.stages``.

    Raises UserError if it has no layer that can be binary.
    """
    if not hasattr(model, "stages"):
        with contextlib.suppress(ValueError):  # raised for a network without a linear layer, which has no stages
            seen = observe(model)
            seen.remove()
            # After the rewriting the stages could no longer be found, because it leaves no Sequential.
            model.stages = seen.stage_names  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report has the same warnings
        model, report = binarize(model, scheme, padding_value=network.padding_value)
    if report.binary_weights == 0:
        why = report.reason or "it has no convolution or linear layer between its first and its last"
        raise UserError(f"network {network.name} cannot be made binary: {why}")
    _REPORTS[model] = report
    return model


def remarks(model: nn.Module) -> list[str]:
    """Returns, as lines, the warnings and the verdict of `binarize` on a network that `build` made binary with it.

    The list is empty for any other network.

    >>> remarks(nn.Linear(2, 2))
    []
    """
    report = _REPORTS.get(model)
    if report is None:
        return []
    more = len(report.warnings) - _SHOWN
    said = [
        *report.warnings[:_SHOWN],
        *([f"{counted(more, 'more warning')}, in the report of binarize"] if more > 0 else []),
    ]
    return [*said, f"in 1 bit: {report.verdict}"]


def own_network(
    make: Any, *, num_classes: int, input_shape: tuple[int, int, int], options: Mapping[str, Any], what: str
) -> nn.Module:
    """Calls a user's class or function that makes a network, and returns the network.

    Of num_classes, input_shape (c, h, w) and the options, `make` gets those that its signature names.
    what: the field that names `make`, for messages. Raises UserError if it fails, or does not return a network.
    """
    offered = {"num_classes": num_classes, "input_shape": tuple(input_shape), **options}
    try:
        made = call_named(make, offered, what=what)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} failed to make a network: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{what} must return a network, a torch.nn.Module, got {type(made).__name__}")
    if not hasattr(made, "input_shape"):
        made.input_shape = tuple(input_shape)  # type: ignore[assignment]
    return made


def _of_user(
    network: NetworkConfig, scheme: SchemeConfig | None, *, num_classes: int, input_shape: tuple[int, int, int]
) -> nn.Module:
    """Builds the network of a user's class or function, whose address is ``network.name``; with a scheme it is binary.

    If the function takes ``binary=``, it makes the network binary itself; otherwise `binarize` does. A network that
    already has binary layers is not changed.
    """
    what = f"network.name {network.name}"
    make = import_address(network.name, what="network.name")
    if not callable(make):
        raise UserError(f"{what} must be a class or function that makes a network, got {type(make).__name__}")
    try:
        names = inspect.signature(make).parameters
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} has no signature that can be read ({error}): name a Python function") from error
    own = dataclasses.replace(network, padding_value=0)  # `binarize` applies it if the function does not take it
    options = _options(own if "padding_value" not in names else network, scheme, make)
    if scheme is None and "binary" in names:
        options["binary"] = None
    model = own_network(make, num_classes=num_classes, input_shape=input_shape, options=options, what=what)
    if scheme is None or any(isinstance(m, (BinaryConv2d, BinaryLinear)) for m in model.modules()):
        return model
    shape = model.input_shape
    model = _made_binary(model, network, _scheme(scheme))
    model.input_shape = shape
    return model


def untrained_network(address: str, *, num_classes: int, in_channels: int = 3, side_exits: bool = True) -> nn.Module:
    """Builds an untrained network of torchvision or timm: ``torchvision:NAME``, ``timm:NAME`` or ``timm:NAME.TAG``.

    TAG names one of timm's sets of trained weights; the network is built so that these fit. side_exits: False leaves
    out the auxiliary classifiers of googlenet and inception_v3.
    Raises UserError if the name is unknown, the library is not installed, or it cannot take `in_channels`.
    """
    library, _, name = address.partition(":")
    if library == "torchvision":
        import torchvision

        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            raise unknown("torchvision network", name, names)
        if in_channels != 3:
            raise UserError(f"{address} takes images of 3 channels, but these have {in_channels}: convert them to RGB")
        own = {"aux_logits": side_exits, "init_weights": True} if name in _SIDE_EXITS else {}
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **own)
        return model
    try:
        import timm
    except ImportError as error:
        raise UserError("a timm: network needs the package timm: pip install timm") from error
    if name not in timm.list_models() and name not in timm.list_pretrained():
        raise unknown("timm network", name, timm.list_models())
    made: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    return made
