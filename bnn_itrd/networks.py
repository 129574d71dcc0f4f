"""From a configuration, or a teacher's address, to a network."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnn_itrd.config import NetworkConfig, SchemeConfig
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.models import MODELS
from bnn_itrd.quant import Scheme

__all__ = ["build", "foreign"]


def build(
    network: NetworkConfig,
    scheme: SchemeConfig | None,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
) -> nn.Module:
    """The teacher (scheme None) or the binary student of a definition. Raises UserError on a name or shape."""
    if network.name not in MODELS:
        raise unknown("network", network.name, MODELS)
    options = _options(network, scheme)
    try:
        return MODELS[network.name](num_classes, in_channels=input_shape[0], input_shape=input_shape, **options)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"network {network.name}: {error}") from error


def _options(network: NetworkConfig, scheme: SchemeConfig | None) -> dict[str, Any]:
    """The builder's arguments. Raises UserError on an option that was set for a network that does not have it."""
    accepted = inspect.signature(MODELS[network.name]).parameters
    fields = [f for f in dataclasses.fields(network) if f.name not in ("name", "teacher_shortcut")]
    strange = [f.name for f in fields if getattr(network, f.name) != f.default and f.name not in accepted]
    if network.teacher_shortcut is not None and "shortcut" not in accepted:
        strange.append("teacher_shortcut")
    if strange:
        has = ", ".join(f.name for f in fields if f.name in accepted) or "none"
        raise UserError(f"network.{strange[0]} is not an option of {network.name}, whose options are: {has}")
    if scheme is None:  # what the other fields say is about students
        given = {"width": network.width, "shortcut": network.teacher_shortcut}
    else:
        given = {f.name: getattr(network, f.name) for f in fields} | {"binary": _scheme(scheme)}
    return {name: value for name, value in given.items() if name in accepted}


def _scheme(config: SchemeConfig) -> Scheme:
    try:
        names = {field.name for field in dataclasses.fields(Scheme)}
        return Scheme(**{k: v for k, v in dataclasses.asdict(config).items() if k in names})
    except ValueError as error:
        raise UserError(f"scheme: {error}") from error


def foreign(address: str, weights: str | None, *, num_classes: int) -> nn.Module:
    """``torchvision:NAME`` or ``timm:NAME``, with its state dict from a local file: nothing is downloaded.

    Raises UserError: unknown name, missing file, a state dict that does not fit.
    """
    library, _, name = address.partition(":")
    if library == "torchvision":
        from torchvision.models import get_model, list_models

        if name not in list_models():
            raise unknown("torchvision network", name, list_models())
        model: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    else:
        try:
            import timm
        except ImportError as error:
            raise UserError("a timm: teacher needs the package timm: pip install timm") from error
        if name not in timm.list_models():
            raise unknown("timm network", name, timm.list_models())
        model = timm.create_model(name, pretrained=False, num_classes=num_classes)
    if weights is None:
        raise UserError(f"teacher {address!r} is untrained: give its state dict with --teacher_weights FILE")
    if not Path(weights).is_file():
        raise UserError(f"no file {weights} for --teacher_weights")
    try:
        if Path(weights).suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:
        raise UserError(f"{weights} is not the state dict of {address} with {num_classes} classes: {error}") from error
    return model
