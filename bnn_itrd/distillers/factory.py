"""`make_distillers`, which makes the distillation losses that a configuration names."""

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
    """The part of a `DistillConfig` that `make_distillers` reads."""

    @property
    def methods(self) -> Mapping[str, Any]:
        """The distillation losses by name: each a `Method`, or an object whose `make(setting)` returns a distiller."""


def make_distillers(config: Learning, setting: Setting) -> nn.ModuleDict:
    """Returns the distillers that a configuration asks for, by their names in the configuration.

    `setting` has the sizes of both networks' outputs, from which layers such as projections get their shapes. The
    methods of this package are made on torch's default device, which may be the meta device. A distiller that the user
    wrote is imported, made on the CPU and called once on random outputs (`OwnConfig.make`).
    Raises UserError if a distiller does not fit the networks, or if a user's object is not a distiller.
    """
    made: dict[str, nn.Module] = {}
    for name, options in config.methods.items():
        if hasattr(nn.ModuleDict(), name):
            raise UserError(
                f"a distiller cannot be called {name!r}, which is a method of torch.nn.ModuleDict: give it another name"
            )
        _check_labels(name, options, setting)
        try:
            made[name] = Term(options, setting) if isinstance(options, Method) else options.make(setting)
        except UserError:
            raise
        except ValueError as error:
            # A loss's message begins with the name of its argument. The user knows the option's name, so it is put
            # there instead if the method has an option for that argument.
            argument, space, rest = str(error).partition(" ")
            argument = options.renamed.get(argument, argument)
            if argument in {field.name for field in dataclasses.fields(options)}:
                raise FieldError(f"{name}.{argument}", rest) from error
            raise UserError(f"{name}: {argument}{space}{rest}") from error
        _check_labels(name, made[name], setting)
    _check_preparation(made)
    return nn.ModuleDict(made)


def _check_preparation(made: Mapping[str, Any]) -> None:
    """Raises UserError if distillers want different learning rates in the preparation, the epochs before the training.

    All distillers are prepared together, by one optimiser.
    """
    rates = {n: getattr(d, "preparation_lr", None) for n, d in made.items() if getattr(d, "preparation_epochs", 0)}
    if len({*rates.values()}) > 1:
        given = ", ".join(f"{name} {'none' if rate is None else f'{rate:g}'}" for name, rate in rates.items())
        raise UserError(
            f"preparation_lr differs between distillers ({given}), but their preparations run together in one "
            "optimiser: give each of them the same rate"
        )


def _check_labels(name: str, asked: object, setting: Setting) -> None:
    """Raises UserError if a method or distiller needs all labels and some training images have none."""
    if getattr(asked, "reads_labels", False) and (without := int((setting.labels < 0).sum())):
        readers = ", ".join(known for known, method in METHODS.items() if method.reads_labels)
        raise UserError(
            f"{name} needs the label of every training image, and {without} of {len(setting.labels)} have none: "
            f"leave out data.unlabelled, or use a distiller that needs no labels (all but {readers})"
        )
