"""Makes the distillers of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from bnn_itrd.distillers.method import Method
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.term import Term
from bnn_itrd.errors import FieldError, UserError

__all__ = ["make_distillers"]


class Learning(Protocol):
    """The part of a `DistillConfig` that distillers are made from."""

    @property
    def methods(self) -> Mapping[str, Any]:
        """Name -> a `Method`, or an object whose `make` returns a distiller."""


def make_distillers(config: Learning, setting: Setting) -> nn.ModuleDict:
    """Returns the distillers of a configuration, by their names there.

    A user's own is imported, made on the CPU and tried here (`OwnConfig.make`). The others are made on torch's default
    device, which may be the meta device.
    Raises UserError where a distiller does not fit the networks, or a user's own object is no distiller.
    """
    made: dict[str, nn.Module] = {}
    for name, options in config.methods.items():
        if hasattr(nn.ModuleDict(), name):
            raise UserError(f"a distiller cannot be called {name!r}: give it another name")
        _check_labels(name, options, setting)
        try:
            made[name] = Term(options, setting) if isinstance(options, Method) else options.make(setting)
        except UserError:
            raise
        except ValueError as error:
            # A loss names its own argument; where that is an option of the method, the message names the option.
            argument, space, rest = str(error).partition(" ")
            argument = options.renamed.get(argument, argument)
            if argument in {field.name for field in dataclasses.fields(options)}:
                raise FieldError(f"{name}.{argument}", rest) from error
            raise UserError(f"{name}: {argument}{space}{rest}") from error
        _check_labels(name, made[name], setting)
    _check_preparation(made)
    return nn.ModuleDict(made)


def _check_preparation(made: Mapping[str, Any]) -> None:
    """Raises UserError where preparations, which share one optimiser, have different learning rates."""
    rates = {n: getattr(d, "preparation_lr", None) for n, d in made.items() if getattr(d, "preparation_epochs", 0)}
    if len({*rates.values()}) > 1:
        given = ", ".join(f"{name} {'none' if rate is None else f'{rate:g}'}" for name, rate in rates.items())
        raise UserError(
            f"preparation_lr must be the same for all distillers with a preparation, got {given}: give each of them "
            "the same rate"
        )


def _check_labels(name: str, asked: object, setting: Setting) -> None:
    """Raises UserError where a method or distiller reads labels and some images have none."""
    if getattr(asked, "reads_labels", False) and (without := int((setting.labels < 0).sum())):
        readers = ", ".join(known for known, method in METHODS.items() if method.reads_labels)
        raise UserError(
            f"{name} reads the label of every training image, and {without} of {len(setting.labels)} have none: "
            f"leave out data.unlabelled, or use another distiller than {readers}"
        )
