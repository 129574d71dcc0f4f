"""Builds the modules of a scheme: a binariser of weights, a binariser of activations, and a nonlinearity.

A scheme has for each a class, a function that makes the module, or the name of a published class. The class or function
gets those of the scheme's options and the layer's sizes that its signature names.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from bnn_itrd.quant.options import OF_LAYERS, PARTS, Part, SchemeOptions

__all__ = ["PartKind", "part_name", "part_parameters", "unknown_name"]

Module = TypeVar("Module", bound=nn.Module)

_DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(SchemeOptions) if field.name not in PARTS + OF_LAYERS
}
# Names that the constructor of a user's own activation or nonlinearity may use for the number of channels.
_CHANNELS = ("channels", "num_channels", "num_features", "num_parameters", "in_channels")
_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """Returns a ValueError whose message has the unknown name, the most similar known one, and all known names.

    kind: what the name stands for, such as "scheme"; the message begins with ``unknown KIND``.

    >>> print(unknown_name("scheme", "xnr", ["recu", "xnor"]))
    unknown scheme 'xnr', did you mean 'xnor'? Expected one of recu, xnor
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {near[0]!r}? Expected" if near else "expected"
    return ValueError(f"unknown {kind} {name!r}, {hint} one of {', '.join(known)}")


def part_name(part: object) -> str:
    """Returns the name of a part of a scheme: a string as it is, ``module:Name`` for a class, function or instance.

    >>> part_name("recu"), part_name(nn.PReLU)
    ('recu', 'torch.nn.modules.activation:PReLU')
    """
    if isinstance(part, str):
        return part
    if isinstance(part, functools.partial):
        values = [*map(repr, part.args), *(f"{name}={value!r}" for name, value in part.keywords.items())]
        return f"{part_name(part.func)}({', '.join(values)})"
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}:{named.__qualname__}"


def part_parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the named parameters of a class or function, name -> parameter, without ``*args`` and ``**kwargs``.

    >>> list(part_parameters(lambda out_channels, *, tau_min=0.5, **rest: None))
    ['out_channels', 'tau_min']
    """
    return {n: p for n, p in inspect.signature(factory).parameters.items() if p.kind not in _UNNAMED}


@dataclass(frozen=True)
class PartKind(Generic[Module]):
    """Builds the modules for one field of a scheme: weight, activation or nonlinearity.

    A "part" is the value of that field: a published name, or a class or function that makes a module.

    field: the field's name. word: what messages call such a module. known: name -> published class. base: the class
    that every module made must be an instance of. sizes: the layer's sizes, such as ``channels``, that a part may take
    as arguments, besides the scheme's options.
    """

    field: str
    word: str
    known: Mapping[str, Callable[..., Module]]
    base: type[Module]
    sizes: tuple[str, ...]

    def find(self, part: Part) -> Callable[..., Module]:
        """Returns the class or function that makes the module; `part` is that class or function, or a published name.

        Raises ValueError on an unknown name, and on an object that is neither a subclass of `base` nor a function.
        """
        if isinstance(part, str):
            if part not in self.known:
                hint = "; to use your own, pass the class itself" if ":" in part else ""
                raise ValueError(f"{unknown_name(self.word, part, self.known)}{hint}")
            return self.known[part]
        if isinstance(part, type):
            fits, got = issubclass(part, self.base), f"the class {part_name(part)}"
        else:
            fits = callable(part) and not isinstance(part, nn.Module)
            got = f"an instance of {part_name(type(part))}"
        if not fits:
            raise ValueError(
                f"{self.field} must be one of {', '.join(self.known)}, or a subclass of {self.base.__name__}, or a "
                f"function that returns an instance of one, got {got}"
            )
        return part

    def needs(self, part: Part, size: str) -> bool:
        """Returns whether the constructor of a part has a parameter for this size, such as ``channels``."""
        factory = self.find(part)
        fixed = factory.keywords if isinstance(factory, functools.partial) else {}
        named = {n: p for n, p in part_parameters(factory).items() if n not in fixed}
        required = [n for n, p in named.items() if p.default is p.empty]
        return size in named or (size == "channels" and any(name in _CHANNELS for name in required))

    def make(self, part: Part, options: SchemeOptions, **sizes: int) -> Module:
        """Returns a new module: calls the class or function that `part` is or names, with the arguments it has.

        These are taken from `sizes` and from the scheme's options.

        A published class gets no option that has the scheme's default, because its own default is the published value.
        A user's own class gets every option that it names, because a run records the values in use. An option that is
        None is not passed, and only the weight gets tau_min and tau_max.
        Raises ValueError where the signature requires any other argument, where a user's own class fails, and where the
        result is not an instance of `base`. A ValueError that the class itself raises is passed on.
        """
        factory = self.find(part)
        given: dict[str, Any] = {}
        own = not isinstance(part, str)
        fixed = part.keywords if isinstance(part, functools.partial) else {}
        known = [name for name in _DEFAULTS if self.field == "weight" or name not in ("tau_min", "tau_max")]
        for name, parameter in part_parameters(factory).items():
            required = parameter.default is parameter.empty
            if name in fixed:
                continue
            if name in sizes:
                given[name] = sizes[name]
            elif name in known:
                value = getattr(options, name)
                if required or (value is not None if own else value != _DEFAULTS[name]):
                    given[name] = self._option(name, part, options)
            elif required and name in _CHANNELS and "channels" in sizes:
                given[name] = sizes["channels"]
            elif required:
                raise ValueError(
                    f"{self.field} {part_name(part)} requires {name!r}, which a scheme cannot give. It can give "
                    f"{', '.join([*sizes, *known])}: rename the parameter to one of these, or give it a default"
                )
        try:
            made = factory(**given)
        except Exception as error:
            if isinstance(part, str) or isinstance(error, ValueError):
                raise
            raise ValueError(
                f"{self.field} {part_name(part)} could not be made: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(made, self.base):
            raise ValueError(
                f"{self.field} {part_name(part)} returned an object of {part_name(type(made))}: it must return an "
                f"instance of {self.base.__name__}"
            )
        return made

    def _option(self, name: str, part: Part, options: SchemeOptions) -> Any:
        value = getattr(options, name)
        if value is None:
            raise ValueError(
                f"{self.field} {part_name(part)} requires {name!r}, which has no value: set it in the scheme, or give "
                "the parameter a default"
            )
        return value
