"""The settings of a user's own distiller: an object or its address, weight and options. It loads without torch."""

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
    """Returns a plain, hashable value. Raises UserError on anything that a YAML file cannot hold."""
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
    """A user's own distiller with its weight, schedule and options.

    Args:
        distiller: a `Distiller`, its class, a factory that returns one, a function (student, teacher, labels) -> loss,
            or the address of one of these, ``package.module:Name``
        options: keyword arguments of the class, factory or function: numbers, texts and lists of them

    >>> def squared(student, teacher, labels, *, power=2.0):
    ...     return (student.logits - teacher.logits).abs().pow(power).mean()
    >>> OwnConfig(squared, weight=0.5, options={"power": 3.0}).tree()["power"]
    3.0

    Raises UserError: a text that is no address, options that a YAML file cannot hold, a weight that is negative.
    """

    distiller: Any
    options: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        distiller: Any = self.distiller
        options = dict(self.options)
        while isinstance(distiller, functools.partial):
            if distiller.args:
                raise UserError(f"{address_of(distiller.func)}: give a partial's arguments by their names")
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
                raise UserError(f"{self.name}.{field.name} must be float, got {value!r}")
            object.__setattr__(self, field.name, float(value))
        super().__post_init__()

    @property
    def name(self) -> str:
        """The address of the distiller, by which a resumed run recognises it."""
        return self.distiller if isinstance(self.distiller, str) else address_of(self.distiller)

    def tree(self) -> dict[str, Any]:
        """Returns weight, schedule and options as plain values."""
        weighted = {field.name: getattr(self, field.name) for field in fields(Weighted)}
        return weighted | {name: list(v) if isinstance(v, tuple) else v for name, v in dict(self.options).items()}

    def make(self, setting: Setting) -> Distiller:
        """Returns the distiller, imported if it is an address, made on the CPU and tried on made-up outputs.

        Raises UserError: no such module or name, an object that is no distiller, options that it does not take, a
        trial that fails (see `try_out`).
        """
        import torch

        from bnn_itrd.distillers.own import make_own

        # The caller may have set the meta device; a user's module must not be imported under it.
        with torch.device("cpu"):
            thing = self.distiller
            if isinstance(thing, str):
                thing = import_address(thing, what="a distiller of your own")
            return make_own(thing, self, setting, dict(self.options))


def own_config(key: str, value: Any) -> OwnConfig:
    """Returns the configuration of an entry of `DistillConfig.own`; key: a name or an address.

    >>> own_config("mypkg.losses:Mine", {"weight": 2.0, "power": 3}).options
    (('power', 3),)

    Raises UserError if the name cannot be that of a column of metrics.csv, and as `OwnConfig` does.
    """
    if is_address(key):
        if isinstance(value, OwnConfig) and value.distiller == key:
            return value
        if not isinstance(value, Mapping):
            raise UserError(f"{key} must hold fields (weight, warmup_epochs, final and its own options), got {value!r}")
        weighted = {field.name: value[field.name] for field in fields(Weighted) if field.name in value}
        return OwnConfig(key, **weighted, options={k: v for k, v in value.items() if k not in weighted})
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][\w-]*", key):
        raise UserError(
            "the name of a distiller of your own must begin with a letter or '_' and have only letters, digits, '_' "
            f"and '-', got {key!r}"
        )
    return value if isinstance(value, OwnConfig) else OwnConfig(value)


def column_of(key: str) -> str:
    """Returns the name of a user's distiller in metrics.csv, where it follows ``loss_``.

    >>> column_of("mine"), column_of("mypkg.losses:Mine")
    ('mine', 'Mine')
    """
    return key.rpartition(":")[2].rpartition(".")[2]
