"""Functions that read a state dict from a user's file, and say how to save a library's weights as such a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bnn_itrd.errors import UserError
from bnn_itrd.training.checkpoint import check_undamaged, refused_content

__all__ = ["how_to_save", "read_state", "state_file"]

# A network of this package -> a library's network whose weights fit it.
_FITTING = {"vgg9": "torchvision:vgg11_bn"}


def how_to_save(network: str) -> str:
    """Returns a shell command that saves a library's trained weights for a network to a file; "" if it has none.

    network: ``torchvision:NAME``, ``timm:NAME``, or the name of a network of this package.

    >>> how_to_save("torchvision:resnet18")[:70]
    'python -c "import torch, torchvision; torch.save(torchvision.models.ge'
    >>> how_to_save("resnet20")
    ''
    """
    library, _, name = _FITTING.get(network, network).partition(":")
    if library == "torchvision":
        made = f"torchvision.models.get_model('{name}', weights='DEFAULT')"
        return f"python -c \"import torch, torchvision; torch.save({made}.state_dict(), '{name}.pth')\""
    if library == "timm":
        made = f"timm.create_model('{name}', pretrained=True)"
        return f"python -c \"import torch, timm; torch.save({made}.state_dict(), '{name}.pth')\""
    return ""


def state_file(path: str, *, field: str, network: str) -> Path:
    """Returns a path given in an option, after checking the file there. Raises UserError if it is missing or damaged.

    field: the option's name; network: the network that the file is for: the message says how to make such a file.
    """
    if not Path(path).is_file():
        how = how_to_save(network)
        said = f"; this command makes one: {how}" if how else ""
        raise UserError(f"no file {path} for --{field}{said}")
    check_undamaged(Path(path))
    return Path(path)


def read_state(path: Path, *, of: str) -> Mapping[str, Tensor]:
    """Reads a state dict from a file of torch or safetensors and returns it: name -> tensor, on the CPU.

    of: the network that it should belong to, for the message. Raises UserError if the file contains no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} is not the state dict of {of}: {refused_content(error) or error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not the state dict of {of}: it must map names to tensors, as state_dict() does")
    return state
