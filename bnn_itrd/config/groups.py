"""Functions that make the dataclass of a group of fields, such as `train`, from a dict of their values.

Their errors name a field in full, as it stands in a recipe: ``teacher_train.epochs``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from bnn_itrd.errors import FieldError, UserError

__all__ = ["make_group", "make_groups"]

T = TypeVar("T")


def make_groups(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` with each group of fields, which is a dict, turned into its dataclass.

    kind: the dataclass of the whole configuration, whose type hints say which fields are groups. values: field ->
    value, or group -> dict of its fields' values.

    >>> from bnn_itrd.config.run import RunConfig
    >>> make_groups(RunConfig, {"network": {"name": "resnet8"}, "teacher": None})["network"].name
    'resnet8'

    Raises FieldError as `make_group` does.
    """
    kinds = {name: hint for name, hint in get_type_hints(kind).items() if name in values}
    return {
        name: make_group(hint, name, values[name])
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
        else values[name]
        for name, hint in kinds.items()
    }


def make_group(kind: type[T], where: str, values: Mapping[str, Any]) -> T:
    """Makes the dataclass `kind` from a group's values; `where` is the group's name, such as ``teacher_train``.

    >>> from bnn_itrd.config.train import TrainConfig
    >>> make_group(TrainConfig, "teacher_train", {"epochs": 0})
    Traceback (most recent call last):
    bnn_itrd.errors.FieldError: teacher_train.epochs must be >= 1 (--teacher_train.epochs 60), got 0

    Raises FieldError on a value that is not allowed. The message suggests an allowed one, if there is one: the field's
    default or, for a field that is true or false, the other value.
    """
    try:
        _check_values(kind, values)
        return kind(**values)
    except FieldError as error:
        raise error.at(where, fits=_fitting(kind, values, error)) from error


def _check_values(kind: type[Any], values: Mapping[str, Any]) -> None:
    """Raises FieldError if a value is None (as from ``epochs:`` in YAML) but the field's type does not allow that."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if value is None and name in hints and type(None) not in get_args(hints[name]):
            raise FieldError(name, "has no value: give it one, or leave the field out")


def _fitting(kind: type[Any], values: Mapping[str, Any], error: FieldError) -> Any:
    """Returns a value that the field of the error may have, to be suggested in its message; None if none is known.

    It is the value that the error itself suggests, or else the field's default (for a bool, its other value), if the
    group can be made with that.
    """
    field = error.field.rpartition(".")[2]
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    if error.fits is not None or defaults.get(field) in (None, dataclasses.MISSING):
        return error.fits
    value = not values[field] if isinstance(defaults[field], bool) else defaults[field]
    try:
        kind(**{**values, field: value})
    except UserError:
        return None
    return value
