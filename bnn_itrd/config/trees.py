"""Configurations as nested plain values: for files, for comparison."""

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
    """Returns the plain nested dict of a configuration: what is written to YAML and into checkpoints."""
    tree: dict[str, Any] = _plain(config)
    return tree


def _plain(value: Any) -> Any:
    if isinstance(value, DistillConfig):
        return value.tree()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty mapping stays as a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            # A file gives a tuple back as a list.
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat


# A resumed run may move to another place or machine; its numbers may not change.
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
    """Defaults for fields that an older saved configuration does not have yet."""
    groups = {group: to_dict(kind()) for group, kind in _GROUPS.items() if isinstance(saved.get(group), Mapping)}
    distill = saved.get("distill")
    if isinstance(distill, Mapping):
        taking_part = [name for name, options in distill.items() if isinstance(options, Mapping)]
        groups["distill"] = {name: to_dict(METHODS.get(name, Weighted)()) for name in taking_part}
    return flatten(groups)


def changed(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ between two configurations and may not, field -> (saved, given).

    A field that an older saved one does not have yet has its default there; 'absent' is what neither has.

    >>> changed({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}})
    {'train.lr': (0.1, 0.2)}
    """
    new = flatten(given)
    old = {key: value for key, value in _defaults(saved).items() if key in new} | flatten(saved)
    keys = [key for key in sorted(old.keys() | new.keys()) if not key.startswith(_FREE)]
    pairs = {key: (old.get(key, "absent"), new.get(key, "absent")) for key in keys}
    return {key: (before, now) for key, (before, now) in pairs.items() if old.get(key) != new.get(key)}


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """One line per field that differs between two configurations and may not: ``train.lr: 0.1 there, 0.2 given``."""
    return [f"{key}: {old!r} there, {new!r} given" for key, (old, new) in changed(saved, given).items()]
