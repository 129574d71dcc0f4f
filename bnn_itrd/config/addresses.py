"""Addresses of a user's own code, ``package.module:Name``, as Python's entry points have them."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Collection
from typing import Any

from bnn_itrd.errors import UserError

__all__ = ["LIBRARIES", "address_of", "check_trusted", "import_address", "is_address"]

# What stands in front of the colon in the address of another library's network; no module of a user.
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
        # A console script has its own folder there, and not the one it is called in.
        sys.path.insert(0, folder)
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


def check_trusted(address: str, trust: bool | Collection[str], *, where: str) -> None:
    """Refuses to import a user's code that only a file names.

    `trust`: True, or the addresses that the user gave. `where` says which file holds the address.
    Raises UserError on an address that is not among them.
    """
    if trust is True or (not isinstance(trust, bool) and address in trust):
        return
    raise UserError(
        f"{where} names code of its own, {address!r}, which would be run: name it again with --trust (in Python "
        "trust=True), or pass the network as model=..., if you know where the file comes from"
    )
