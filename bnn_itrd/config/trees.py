"""Functions that turn configurations into nested dicts, to be saved and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.distillers.weighted import Weighted

__all__ = ["changed", "differences", "flatten", "to_dict"]


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as a nested dict of plain values, as it is written to YAML files and checkpoints.

    >>> from bnn_itrd.config.train import LogConfig
    >>> to_dict(LogConfig())
    {'tensorboard': True, 'progress': True}
    """
    tree: dict[str, Any] = _plain(config)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, DistillConfig):
        return value.tree()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested dict as a single one with dotted names as keys; an empty dict stays as a value.

    >>> flatten({"a": {"b": 1}, "c": {}})
    {'a.b': 1, 'c': {}}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            # YAML and JSON files hold a tuple as a list, so that only lists can be compared.
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


# Fields that a resumed run may change, since they do not affect its results: a run may move to another machine.
_FREE = (
    "data.root",
    "data.download",
    "data.workers",
    "data.resize",
    "fabric.",
    "log.",
    "made_by",
    "train.checkpoint_seconds",
    "train.compile_mode",
    "train.fused_kernels",
    "train.max_seconds",
)


_GROUPS = {"data": DataConfig, "network": NetworkConfig, "scheme": SchemeConfig, "train": TrainConfig}


def _defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns defaults, by dotted name, for fields that an older saved configuration may not have yet."""
    groups = {group: to_dict(kind()) for group, kind in _GROUPS.items() if isinstance(saved.get(group), Mapping)}
    distill = saved.get("distill")
    if isinstance(distill, Mapping):
        taking_part = [name for name, options in distill.items() if isinstance(options, Mapping)]
        groups["distill"] = {name: to_dict(METHODS.get(name, Weighted)()) for name in taking_part}
    return flatten(groups)


def changed(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ between two configurations and affect a run's results, field -> (saved, given).

    A field that an older saved configuration does not have yet counts as its default. A field without a default counts
    as 'absent'.

    >>> changed({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}})
    {'train.lr': (0.1, 0.2)}
    """
    new = flatten(given)
    old = {key: value for key, value in _defaults(saved).items() if key in new} | flatten(saved)
    keys = [key for key in sorted(old.keys() | new.keys()) if not key.startswith(_FREE)]
    pairs = {key: (old.get(key, "absent"), new.get(key, "absent")) for key in keys}
    return {key: (before, now) for key, (before, now) in pairs.items() if old.get(key) != new.get(key)}


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Returns a line of text for each field that differs between two configurations and affects a run's results.

    >>> differences({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}})
    ['train.lr: 0.1 there, 0.2 given']
    """
    return [f"{key}: {old!r} there, {new!r} given" for key, (old, new) in changed(saved, given).items()]
