"""Functions for addresses, which name a user's own code as ``package.module:Name``, as Python's entry points do."""

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

# A name with one of these before the colon means a network of that library (torchvision:resnet18). It is no address.
LIBRARIES = ("torchvision", "timm")

_ADDRESS = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def is_address(text: object) -> bool:
    """Returns whether `text` is the address of a user's own object, ``package.module:Name``.

    A library's network, such as ``torchvision:resnet18``, is no address.

    >>> is_address("mypkg.losses:MyLoss"), is_address("recu"), is_address("torchvision:resnet18")
    (True, False, False)
    """
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    return found is not None and found[1] not in LIBRARIES


def import_address(address: str, *, what: str) -> Any:
    """Imports the module of an address and returns the object that it names; importing runs the user's code.

    The module is looked for on Python's search path and in the current folder. `what` is the option or field that holds
    the address, for the message. Raises UserError if the module cannot be imported, or has no such name.

    >>> import_address("math:sqrt", what="example")(9.0)
    3.0
    """
    module_name, _, names = address.partition(":")
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        # The command `bnn-itrd` finds its own folder on sys.path, but not the current one. The current folder comes
        # last, so that a file in it never hides an installed module.
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
    """Returns the names of the packages that contain a module, then its own: ``a.b`` gives ``["a", "a.b"]``."""
    parts = module_name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def address_of(thing: Any) -> str:
    """Returns the address, ``module:Name``, of a class or function. For another object it is its class's address.

    >>> from collections import OrderedDict
    >>> address_of(OrderedDict), address_of(OrderedDict())
    ('collections:OrderedDict', 'collections:OrderedDict')
    """
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}:{named.__qualname__}"


def call_named(make: Callable[..., Any], offered: Mapping[str, Any], *, what: str) -> Any:
    """Calls a user's class or function with those arguments of `offered` that its signature has; returns the result.

    So a user's function takes only the arguments that it uses. `what` is the option or field that names the function,
    for the message. Raises UserError if the function needs an argument that is not in `offered`. Errors that the
    function raises itself are not caught.

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
            f"{what}: {getattr(make, '__name__', make)} needs the argument {name!r}, but the only arguments that it "
            f"can have are {', '.join(offered)}: give {name!r} a default"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return make(**offered)
    names = {p.name for p in parameters}
    return make(**{name: value for name, value in offered.items() if name in names})


def named_addresses(tree: Any) -> frozenset[str]:
    """Returns all addresses (``package.module:Name``) among the keys and values of nested dicts and lists.

    It finds the user's own code in a saved configuration, before any of it is imported.

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
    """Raises UserError unless the user trusts an address that stands in a file.

    It is called before the address is imported, because importing runs code that the file's author may have chosen.
    trust: True (every address), or the addresses that the user gave himself. where: the file, for the message. instead:
    what else the user can do, for the message.

    >>> check_trusted("mypkg:make", {"mypkg:make"}, where="config.yaml")
    """
    if trust is True or (not isinstance(trust, bool) and address in trust):
        return
    raise UserError(
        f"{where} names the code {address!r}, which would be run: if you know where the file comes from, add --trust "
        f"(in Python trust=True), or {instead}"
    )
