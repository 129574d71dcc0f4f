"""Addresses of a user's own code, ``package.module:Name``, written as in Python's entry points."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from bnn_itrd.errors import UserError

__all__ = ["LIBRARIES", "address_of", "call_named", "check_trusted", "import_address", "is_address", "named_addresses"]

# The names before the colon that mean a library's network (torchvision:resnet18), not a user's module.
LIBRARIES = ("torchvision", "timm")

_ADDRESS = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def is_address(text: object) -> bool:
    """Returns whether a text is the address of a user's own object.

    >>> is_address("mypkg.losses:MyLoss"), is_address("recu"), is_address("torchvision:resnet18")
    (True, False, False)
    """
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    return found is not None and found[1] not in LIBRARIES


def import_address(address: str, *, what: str) -> Any:
    """Imports the module of an address and returns the object it names; this runs the user's code.

    The module is looked for where Python looks and in the current folder. `what` names the option or field that holds
    the address, for the message. Raises UserError where the module cannot be imported or has no such name.

    >>> import_address("math:sqrt", what="example")(9.0)
    3.0
    """
    module_name, _, names = address.partition(":")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        # A console script's sys.path has the script's folder, not the current one. It is appended last, so that a file
        # in it never hides an installed module.
        sys.path.append(folder)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _parents(module_name):
            raise UserError(
                f"{what}: there is no module {module_name!r} for {address!r}: install it, or call the command in the "
                "folder that holds it"
            ) from error
        raise UserError(f"{what}: importing {module_name!r} failed: {type(error).__name__}: {error}") from error
    for name in names.split("."):
        if not hasattr(found, name):
            raise UserError(f"{what}: module {module_name!r} has no {names!r}")
        found = getattr(found, name)
    return found


def _parents(module_name: str) -> list[str]:
    parts = module_name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def address_of(thing: Any) -> str:
    """Returns the qualified name of a class or function, or of an object's class, in the form of an address.

    >>> from collections import OrderedDict
    >>> address_of(OrderedDict), address_of(OrderedDict())
    ('collections:OrderedDict', 'collections:OrderedDict')
    """
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}:{named.__qualname__}"


def call_named(make: Callable[..., Any], offered: Mapping[str, Any], *, what: str) -> Any:
    """Calls a user's class or function with the offered arguments that its signature names.

    Raises UserError if it needs an argument that is not offered. Exceptions of the call itself pass through.

    >>> call_named(lambda num_classes: num_classes + 1, {"num_classes": 10, "input_shape": (3, 32, 32)}, what="example")
    11
    """
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {make!r} cannot be called with {', '.join(offered)}: {error}") from error
    positional = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [name for name in needed if name not in offered]
    if missing or positional:
        name = (missing or [p.name for p in positional])[0]
        raise UserError(
            f"{what}: {getattr(make, '__name__', make)} needs the argument {name!r}, but it is called only with those "
            f"of {', '.join(offered)} that it names: give {name!r} a default"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return make(**offered)
    names = {p.name for p in parameters}
    return make(**{name: value for name, value in offered.items() if name in names})


def named_addresses(tree: Any) -> frozenset[str]:
    """Returns all addresses among the keys and texts of nested plain values, such as a configuration as a dict.

    >>> sorted(named_addresses({"network": {"name": "mypkg.nets:make"}, "students": {"s": {"mypkg:Loss": None}}}))
    ['mypkg.nets:make', 'mypkg:Loss']
    """
    if isinstance(tree, Mapping):
        return named_addresses([*tree.keys(), *tree.values()])
    if isinstance(tree, (list, tuple)):
        return frozenset().union(*map(named_addresses, tree))
    return frozenset([tree]) if is_address(tree) else frozenset()


def check_trusted(
    address: str,
    trust: bool | Collection[str],
    *,
    where: str,
    instead: str = "pass the network as model=...",
) -> None:
    """Raises UserError unless the user trusts an address that a file contains, since importing it runs code.

    trust: True, or the addresses that the user gave. where: the file, for the message. instead: what else the user can
    do.

    >>> check_trusted("mypkg:make", {"mypkg:make"}, where="config.yaml")
    """
    if trust is True or (not isinstance(trust, bool) and address in trust):
        return
    raise UserError(
        f"{where} names the code {address!r}, which would be run: if you know where the file comes from, add --trust "
        f"(in Python trust=True), or {instead}"
    )
