"""Functions that start a network from trained weights in a file, the option ``network.weights``, or check the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.errors import UserError
from bnn_itrd.files import file_hash
from bnn_itrd.models import find_head
from bnn_itrd.runs.given.state_files import how_to_save, read_state, state_file
from bnn_itrd.words import counted

__all__ = ["begin_with_weights", "check_first_weights"]

_FIELD = "network.weights"
# A buffer of BatchNorm, which files from old versions of torch do not have.
_COUNT = "num_batches_tracked"


def begin_with_weights(model: nn.Module, network: NetworkConfig) -> dict[str, Any]:
    """Loads the weights in the file ``network.weights`` into a new network, all but those of its classifier.

    Every other tensor of the network, except BatchNorm's num_batches_tracked, must be in the file with the same name
    and shape. Returns {'weights_sha256': the file's hash}, which a checkpoint stores; {} if no file is set.
    Raises UserError, before any weight changes, if the file is missing or does not fit the network.
    """
    if (found := _found(model, network)) is None:
        return {}
    path, taken = found
    model.load_state_dict(taken, strict=False)
    return {"weights_sha256": file_hash(path)}


def check_first_weights(model: nn.Module, network: NetworkConfig) -> None:
    """Raises UserError where `begin_with_weights` would; the network does not change and may be on the meta device."""
    _found(model, network)


def _found(model: nn.Module, network: NetworkConfig) -> tuple[Path, dict[str, Tensor]] | None:
    """Returns the file in ``network.weights`` and those of its tensors that a network takes; None if no file is set.

    Raises UserError as `begin_with_weights` does.
    """
    if network.weights is None:
        return None
    path = state_file(network.weights, field=_FIELD, network=network.name)
    state, own = read_state(path, of=network.name), model.state_dict()
    try:
        head = f"{find_head(model)}."
    except ValueError as error:
        raise UserError(f"{_FIELD} needs to know the classifier, whose weights are not loaded: {error}") from error
    taken = {name: value for name, value in state.items() if name in own and not name.startswith(head)}
    problem = _problem(own, state, taken, head=head)
    if problem is not None:
        how = how_to_save(network.name)
        said = f". This command makes a file that fits: {how}" if how else ""
        raise UserError(f"{_FIELD}: {path} does not fit {network.name}: {problem}{said}")
    return path, taken


def _problem(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], taken: Mapping[str, Tensor], *, head: str
) -> str | None:
    """Returns why a state dict does not fit a network, as text for the user; None if it does.

    own: the network's state dict; state: the file's; taken: the tensors of the file that will be loaded; head: the name
    of the classifier, with a dot.
    """
    missing = [n for n in own if n not in taken and not n.startswith(head) and not n.endswith(_COUNT)]
    if missing:
        return f"it has no {missing[0]} ({len(missing)} of {counted(len(own), 'tensor')} are missing)"
    # The classifier may have another name in the file. Names outside the network's submodules are therefore allowed.
    parts = {name.partition(".")[0] for name in own}
    other = [name for name in state if name not in own and name.partition(".")[0] in parts]
    if other:
        return f"it also has {other[0]}, which the network does not have ({counted(len(other), 'such name')})"
    for name, value in taken.items():
        if value.shape != own[name].shape:
            return f"{name} has the shape {tuple(value.shape)}, but {tuple(own[name].shape)} in the network"
        if value.is_floating_point() and not value.isfinite().all():
            return f"{name} has values that are not finite"
    return None
