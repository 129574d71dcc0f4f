"""Chooses, by its signature, the arguments with which a user's own loss class or function is called; loads no torch."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.weighted import Weighted
from bnn_itrd.errors import UserError, unknown

__all__ = ["OUTPUTS", "Call", "call_of", "is_term", "parameters_of", "shown"]

# The arguments of a distillation loss, in this order. The last is passed only to losses with a parameter for it.
OUTPUTS = ("student", "teacher", "labels", "indices")
_OURS = ("setting", "config", "weight")
_WEIGHTED = ("weight", "warmup_epochs", "final")
_EMPTY = inspect.Parameter.empty
Parameters = Mapping[str, inspect.Parameter]


@dataclasses.dataclass(frozen=True)
class Call:
    """Keyword arguments for a call of a user's class or function.

    `weighs` is true if the user's code has a parameter for the loss's weight, and so applies the weight itself.
    """

    arguments: dict[str, Any]
    weighs: bool


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Returns the parameters of a function or class, name -> `inspect.Parameter`.

    A function written in C may have no signature: it is taken to have the parameters student, teacher, labels.

    >>> list(parameters_of(lambda student, teacher, labels: 0))
    ['student', 'teacher', 'labels']
    """
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {name: inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in OUTPUTS[:3]}


def _places(parameters: Parameters) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in parameters.values() if p.kind in kinds]


def _takes_any(parameters: Parameters) -> bool:
    return any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters.values())


def is_term(parameters: Parameters) -> bool:
    """Returns whether a function is itself a loss (student, teacher, labels); otherwise it is a factory of a loss.

    It is a loss if it has three or more positional parameters, of which the first three are not ``setting``,
    ``config`` or ``weight``; these are a factory's.

    >>> is_term(parameters_of(lambda s, t, y: 0)), is_term(parameters_of(lambda setting, power=2: 0))
    (True, False)
    """
    places = _places(parameters)
    return _takes_any(parameters) or (len(places) >= 3 and not any(p.name in _OURS for p in places[:3]))


def shown(parameters: Parameters) -> int:
    """Returns with how many positional arguments a user's loss is called: three, or four if it takes the indices.

    Three are the student's outputs, the teacher's outputs and the labels. The sample indices are passed too if the
    fourth parameter is called ``indices``; with another name it is an option of the loss.

    >>> shown(parameters_of(lambda s, t, y, power: 0)), shown(parameters_of(lambda s, t, y, indices: 0))
    (3, 4)
    """
    if _takes_any(parameters):
        return 4
    fourth = next(iter(_places(parameters)[3:]), None)
    if fourth is None or fourth.name in _OURS:
        return 3
    return 4 if fourth.name == "indices" or fourth.kind is inspect.Parameter.POSITIONAL_ONLY else 3


def call_of(
    function: Callable[..., Any],
    parameters: Parameters,
    config: Weighted,
    setting: Setting,
    options: Mapping[str, Any],
    *,
    skip: int = 0,
) -> Call:
    """Returns the keyword arguments with which a user's class or function is called.

    Args:
        function: the user's class or function
        parameters: its parameters, from `parameters_of`
        config: the loss's name, weight and schedule
        setting: the sizes of both networks' outputs, passed if there is a parameter ``setting``
        options: the user's values for its parameters, or for the fields of the dataclass that annotates ``config``
        skip: number of leading parameters that the caller passes by position

    >>> make = lambda setting, power=2: None
    >>> call_of(make, parameters_of(make), Weighted(), None, {"power": 3})
    Call(arguments={'setting': None, 'power': 3}, weighs=False)

    Raises UserError if an option is unknown or missing, and if the function has a default weight that is never used.
    """
    first = {p.name for p in _places(parameters)[:skip]}
    named = {n: p.default for n, p in parameters.items() if n not in first and p.kind not in _VARIABLE}
    kind = _config_class(function, config) if "config" in named else None
    fields = {} if kind is None else {f.name: f for f in dataclasses.fields(kind) if f.init}
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        own = sorted({*named, *fields} - {*_OURS, *_WEIGHTED})
        for option in options:
            if option not in own:
                raise unknown(f"option of {config.name}", option, [*_WEIGHTED, *own])
    arguments: dict[str, Any] = {"setting": setting, "config": config, "weight": config.weight}
    arguments = {n: value for n, value in arguments.items() if n in named}
    arguments |= {n: value for n, value in options.items() if n not in fields}
    values = {n: getattr(config, n) for n in _WEIGHTED if n in fields} | {n: options[n] for n in options if n in fields}
    lacking = [n for n, default in named.items() if default is _EMPTY and n not in arguments]
    lacking += [n for n, f in fields.items() if n not in values and _required(f)]
    if lacking:
        raise UserError(
            f"{config.name} has no value for {', '.join(lacking)}: give one next to its weight (if {config.name} is "
            "itself a loss function, its first three parameters must be student, teacher, labels)"
        )
    if kind is not None:
        arguments["config"] = kind(**values)
    for default in (named.get("weight"), fields["weight"].default if "weight" in fields else None):
        _check_default(config, default)
    return Call(arguments, weighs="weight" in named or "weight" in fields)


_VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _config_class(function: Callable[..., Any], config: Weighted) -> Any:
    """Returns the user's own dataclass if it annotates the function's parameter `config`, else None."""
    try:
        hint = get_type_hints(function.__init__ if isinstance(function, type) else function).get("config")  # type: ignore[misc]
    except Exception:  # the annotation may be a name that only a type checker resolves
        return None
    is_own = isinstance(hint, type) and dataclasses.is_dataclass(hint) and not isinstance(config, hint)
    return hint if is_own else None


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _check_default(config: Weighted, default: Any) -> None:
    if isinstance(default, int | float) and default != 1.0 and config.weight == 1.0:
        raise UserError(
            f"{config.name}'s own default weight, {default}, has no effect, because a distiller's weight is 1.0 unless "
            f"the configuration gives one: add weight: {default} there, or remove that default"
        )
