"""Functions that find or load the data set for which a trained network or an exported file was made."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.errors import UserError
from bnn_itrd.yaml_files import read_yaml

if TYPE_CHECKING:
    from bnn_itrd.data.splits import ImageData, ImageFacts

__all__ = ["recorded", "recorded_facts", "validation_data"]


def validation_data(
    known: dict[str, Any],
    config: dict[str, Any],
    given: dict[str, Any],
    *,
    trust: bool | Collection[str] = False,
) -> ImageData:
    """Loads the data set on which a network was trained, or the one that the command line names, to evaluate on it.

    The images are normalised as in the network's training. known: the settings stored in a checkpoint, or the metadata
    of an exported file; config: the run's configuration; given: `DataConfig` fields from the command line, which
    replace the run's; trust: True, or the addresses of a user's code that may be imported though only the run names it.
    Raises UserError if the data cannot be loaded, needs code that is not trusted, or was given as Python objects.
    """
    from bnn_itrd.config.data import DataConfig
    from bnn_itrd.data.datasets import load_data

    saved = config.get("data") or {}
    if not isinstance(saved, dict):
        raise UserError(
            f"the run's `data` must be a mapping of fields, got {str(saved)[:40]!r}: is config.yaml damaged?"
        )
    fields = {k: v for k, v in saved.items() if k in DataConfig.__dataclass_fields__}
    if known.get("dataset"):
        fields.setdefault("name", str(known["dataset"]))
    if "name" not in given:
        _check_name(str(fields.get("name", DataConfig.name)), trust)
    elif given["name"] != fields.get("name"):
        fields.pop("root", None)
    try:
        chosen = DataConfig(**{**fields, **given})
    except TypeError as error:
        raise UserError(f"the run's `data` has a value of a wrong type ({error}): is config.yaml damaged?") from error
    data = load_data(chosen)
    if "mean" in known and "std" in known and len(known["mean"]) == data.input_shape[0]:
        data = data.normalised_with(known["mean"], known["std"])
    return data


def _check_name(name: str, trust: bool | Collection[str]) -> None:
    """Raises UserError if a data set's name, read from a run, is unknown or the address of untrusted code."""
    from bnn_itrd.config.addresses import check_trusted, is_address
    from bnn_itrd.data.datasets import DATASETS

    if is_address(name):
        check_trusted(name, trust, where="the run's data.name", instead=f"give --data {name}")
    elif name not in DATASETS:
        raise UserError(
            f"the network was trained on a data set of your own, {name!r}, which cannot be loaded by its name: name "
            "the data to use with --data NAME, or --data package.module:make"
        )


def recorded_facts(identity: dict[str, Any]) -> ImageFacts | None:
    """Returns what a checkpoint records of data that was given as Python objects; None for data that can be loaded.

    An export uses it in place of the data. identity: the settings stored in the checkpoint.
    """
    from bnn_itrd.data.splits import ImageFacts

    data = identity.get("data") or {}
    if "resize" not in data:
        return None
    channels, height, width = identity["input_shape"]
    mean, std = tuple(identity["mean"]), tuple(identity["std"])
    shape = (channels, height, width)
    return ImageFacts(data["name"], tuple(identity["classes"]), mean, std, shape, data["resize"])


def recorded(path: Path) -> dict[str, Any]:
    """Returns the configuration in the config.yaml beside a file, as a nested dict; {} if there is none."""
    config = path.parent / "config.yaml"
    tree = read_yaml(config) if config.is_file() else None
    return tree if isinstance(tree, dict) else {}
