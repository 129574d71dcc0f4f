"""The settings of a distiller that the user wrote: the object or its address, its weight and its options."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from bnn_itrd.config.addresses import address_of, import_address, is_address
from bnn_itrd.distillers.weighted import Weighted
from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from bnn_itrd.distillers.base import Distiller
    from bnn_itrd.distillers.setting import Setting

__all__ = ["OwnConfig", "column_of", "own_config"]

# YAML 1.1 reads 1e-3 as text.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def _value(where: str, value: Any) -> Any:
    """Returns an option's value with tuples in place of lists and numbers in place of texts such as ``1e-3``.

    Raises UserError if a YAML file could not hold the value; `where` is the option's name for the message.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list | tuple):
        return tuple(_value(where, each) for each in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(
        f"{where} must be a number, a text, true, false, null or a list of these, got a {type(value).__name__}: "
        "for anything else make the object yourself, and pass that as the distiller"
    )


@dataclass(frozen=True)
class OwnConfig(Weighted):
    """The settings of a distiller that the user wrote, with its weight, the weight's schedule, and its options.

    Args:
        distiller: a `Distiller`, its class, a factory that returns one, a function (student, teacher, labels) -> loss,
            or the address of one of these, ``package.module:Name``
        options: keyword arguments of the class, factory or function: numbers, texts and lists of them

    >>> def squared(student, teacher, labels, *, power=2.0):
    ...     return (student.logits - teacher.logits).abs().pow(power).mean()
    >>> OwnConfig(squared, weight=0.5, options={"power": 3.0}).tree()["power"]
    3.0

    Raises UserError if `distiller` is a text but no address, a YAML file could not hold an option, or the weight is
    negative.
    """

    distiller: Any
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        distiller: Any = self.distiller
        options = dict(self.options)
        while isinstance(distiller, functools.partial):
            if distiller.args:
                raise UserError(
                    f"{address_of(distiller.func)}: functools.partial has arguments without names: give all by name"
                )
            options = {**distiller.keywords, **options}
            distiller = distiller.func
        if isinstance(distiller, str) and not is_address(distiller):
            raise UserError(f"a distiller of your own is written package.module:Name, got {distiller!r}")
        object.__setattr__(self, "distiller", distiller)
        pairs = tuple((name, _value(f"{self.name}.{name}", value)) for name, value in options.items())
        object.__setattr__(self, "options", pairs)
        for field in fields(Weighted):
            value = _value(f"{self.name}.{field.name}", getattr(self, field.name))
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{self.name}.{field.name} must be a number, got {value!r}")
            object.__setattr__(self, field.name, float(value))
        super().__post_init__()

    @property
    def name(self) -> str:
        """The distiller's address, ``package.module:Name``, by which a resumed run sees whether it is the same one."""
        return self.distiller if isinstance(self.distiller, str) else address_of(self.distiller)

    def tree(self) -> dict[str, Any]:
        """Returns a dict of the weight, its schedule and the options, with lists in place of tuples, as for YAML."""
        weighted = {field.name: getattr(self, field.name) for field in fields(Weighted)}
        return weighted | {name: list(v) if isinstance(v, tuple) else v for name, v in dict(self.options).items()}

    def make(self, setting: Setting) -> Distiller:
        """Returns the distiller, made on the CPU; an address is imported first.

        setting: the sizes of the networks' outputs, and the labels. Before it is returned, the distiller is called once
        on random outputs of these sizes. Raises UserError if the address leads to nothing, the object is no distiller,
        it does not take the options, or the trial call fails.
        """
        import torch

        from bnn_itrd.distillers.own import make_own

        # The caller may have set the meta device, on which tensors have no values. A user's module must not be
        # imported under it, because tensors that the module makes would have no values either.
        with torch.device("cpu"):
            thing = self.distiller
            if isinstance(thing, str):
                thing = import_address(thing, what="a distiller of your own")
            return make_own(thing, self, setting, dict(self.options))


def own_config(key: str, value: Any) -> OwnConfig:
    """Returns the settings of a user's own distiller from its entry in a recipe or in `DistillConfig.own`.

    key: an address, ``package.module:Name``, or a name. value: for an address, a dict with weight, schedule and
    options; for a name, an `OwnConfig` or the distiller itself.

    >>> own_config("mypkg.losses:Mine", {"weight": 2.0, "power": 3}).options
    (('power', 3),)

    Raises UserError if the name cannot be part of a column's name in metrics.csv, and as `OwnConfig` does.
    """
    if is_address(key):
        if isinstance(value, OwnConfig) and value.distiller == key:
            return value
        if not isinstance(value, Mapping):
            raise UserError(
                f"{key} must hold fields (weight, warmup_epochs, final and options of the distiller), such as "
                f"{{weight: 1.0}}, got {value!r}"
            )
        weighted = {field.name: value[field.name] for field in fields(Weighted) if field.name in value}
        return OwnConfig(key, **weighted, options={k: v for k, v in value.items() if k not in weighted})
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", key):
        raise UserError(
            "the name of a distiller of your own must begin with a letter or '_' and have only letters, digits, '_' "
            f"and '-', got {key!r}"
        )
    return value if isinstance(value, OwnConfig) else OwnConfig(value)


def column_of(key: str) -> str:
    """Returns the short name of a user's distiller, from its name or address; its column is ``loss_`` and this name.

    >>> column_of("mine"), column_of("mypkg.losses:Mine")
    ('mine', 'Mine')
    """
    return key.rpartition(":")[2].rpartition(".")[2]
