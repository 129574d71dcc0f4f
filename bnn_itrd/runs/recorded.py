"""The data a trained network or a file was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnn_itrd.data.splits import ImageData

__all__ = ["recorded", "validation_data"]


def validation_data(known: dict[str, Any], config: dict[str, Any], given: dict[str, Any]) -> ImageData:
    """The data set a network was trained on, with what the command line says instead, normalised as it learned it.

    known: what the network carries (a checkpoint's identity, a file's metadata); config: the run's configuration.
    """
    from bnn_itrd.config.data import DataConfig
    from bnn_itrd.data.datasets import load_data

    saved = dict(config.get("data") or {})
    fields = {k: v for k, v in saved.items() if k in DataConfig.__dataclass_fields__}
    if known.get("dataset"):
        fields.setdefault("name", str(known["dataset"]))
    if "name" in given and given["name"] != fields.get("name"):
        fields.pop("root", None)
    data = load_data(DataConfig(**{**fields, **given}))
    if "mean" in known and "std" in known and len(known["mean"]) == data.input_shape[0]:
        data = data.normalised_with(known["mean"], known["std"])
    return data


def recorded(path: Path) -> dict[str, Any]:
    """What the run's config.yaml beside an exported file says of it; nothing where there is none."""
    import yaml

    config = path.parent / "config.yaml"
    tree = yaml.safe_load(config.read_text()) if config.is_file() else None
    return tree if isinstance(tree, dict) else {}
