"""Makes the parts of a scheme, each given by a name, a class or a function, with the arguments its signature names."""

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
    """Returns the error ``unknown KIND 'name', did you mean 'x'? Expected one of ...``.

    >>> print(unknown_name("scheme", "xnr", ["recu", "xnor"]))
    unknown scheme 'xnr', did you mean 'xnor'? Expected one of recu, xnor
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {near[0]!r}? Expected" if near else "expected"
    return ValueError(f"unknown {kind} {name!r}, {hint} one of {', '.join(known)}")


def part_name(part: object) -> str:
    """Returns the name of a published part, and ``module:Name`` of a user's own.

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
    """Returns the named parameters of a class or function, without ``*args`` and ``**kwargs``.

    >>> list(part_parameters(lambda out_channels, *, tau_min=0.5, **rest: None))
    ['out_channels', 'tau_min']
    """
    return {n: p for n, p in inspect.signature(factory).parameters.items() if p.kind not in _UNNAMED}


@dataclass(frozen=True)
class PartKind(Generic[Module]):
    """How one field of a scheme (weight, activation or nonlinearity) is turned into a module.

    field: the field's name; word: the word for it in messages; known: the published parts by name; base: the class
    that every part is an instance of; sizes: the arguments that a part may take in addition to the scheme's options.
    """

    field: str
    word: str
    known: Mapping[str, Callable[..., Module]]
    base: type[Module]
    sizes: tuple[str, ...]

    def find(self, part: Part) -> Callable[..., Module]:
        """Returns the class or function that makes a part.

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
        """Returns whether the class or function that makes a part has a parameter for this size."""
        factory = self.find(part)
        fixed = factory.keywords if isinstance(factory, functools.partial) else {}
        named = {n: p for n, p in part_parameters(factory).items() if n not in fixed}
        required = [n for n, p in named.items() if p.default is p.empty]
        return size in named or (size == "channels" and any(name in _CHANNELS for name in required))

    def make(self, part: Part, options: SchemeOptions, **sizes: int) -> Module:
        """Returns a new part, called with the sizes and options that the signature of its class or function names.

        Where an option of the scheme has its default, a published class uses its own default. A user's own part gets
        the scheme's value of every option that it names, so that a run records the values in use; an option without a
        value (tau) is not passed. Only the weight gets tau. Raises ValueError where a signature requires any other
        argument, where a user's own part raises, and where the result is no instance of `base`; a ValueError of the
        class itself is passed on.
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
