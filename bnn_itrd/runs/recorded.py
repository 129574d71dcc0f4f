"""The data a trained network or a file was made for."""

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
    """Loads the data set a network was trained on, with what the command line says instead, normalised as it learned.

    known: what the network carries (a checkpoint's identity, a file's metadata); config: the run's configuration;
    given: the `DataConfig` fields of the command line; trust: see `check_trusted`.
    Raises UserError as `load_data` does, where only the run names the address of a user's code, and where it was
    trained on Datasets that no name says.
    """
    from bnn_itrd.config.data import DataConfig
    from bnn_itrd.data.datasets import load_data

    saved = config.get("data") or {}
    if not isinstance(saved, dict):
        raise UserError(
            f"the run's `data` must be a mapping of fields, got {str(saved)[:40]!r}: is its config.yaml whole?"
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
        raise UserError(f"the run's `data` has a value of another kind: {error}") from error
    data = load_data(chosen)
    if "mean" in known and "std" in known and len(known["mean"]) == data.input_shape[0]:
        data = data.normalised_with(known["mean"], known["std"])
    return data


def _check_name(name: str, trust: bool | Collection[str]) -> None:
    """Refuses a name that the user did not give and that cannot be loaded without asking. Raises UserError."""
    from bnn_itrd.config.addresses import check_trusted, is_address
    from bnn_itrd.data.datasets import DATASETS

    if is_address(name):
        check_trusted(name, trust, where="the run's data.name", instead=f"give --data {name}")
    elif name not in DATASETS:
        raise UserError(
            f"the network was trained on a data set of your own, {name!r}, which cannot be loaded by this name: give "
            "--data NAME, or --data package.module:make"
        )


def recorded_facts(identity: dict[str, Any]) -> ImageFacts | None:
    """What a checkpoint says of Datasets that were given as objects, and so cannot be loaded; None of other data."""
    from bnn_itrd.data.splits import ImageFacts

    data = identity.get("data") or {}
    if "resize" not in data:
        return None
    channels, height, width = identity["input_shape"]
    mean, std = tuple(identity["mean"]), tuple(identity["std"])
    shape = (channels, height, width)
    return ImageFacts(data["name"], tuple(identity["classes"]), mean, std, shape, data["resize"])


def recorded(path: Path) -> dict[str, Any]:
    """Reads what the run's config.yaml beside an exported file says of it; empty where there is none."""
    config = path.parent / "config.yaml"
    tree = read_yaml(config) if config.is_file() else None
    return tree if isinstance(tree, dict) else {}
