"""The trained weights that a student in full precision begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.errors import UserError
from bnn_itrd.files import file_hash
from bnn_itrd.models import find_head
from bnn_itrd.runs.given.state_files import how_to_save, read_state, state_file
from bnn_itrd.words import counted

__all__ = ["begin_with_weights"]

_FIELD = "network.weights"
# A count that a BatchNorm keeps; older files do not have it.
_COUNT = "num_batches_tracked"


def begin_with_weights(model: nn.Module, network: NetworkConfig) -> dict[str, Any]:
    """Gives a fresh network the weights of ``network.weights``, and returns what a checkpoint keeps of the file.

    Everything but the classifier is taken by name, and has to be there in the network's shapes; the classifier stays
    as it is, whatever the file's is called. Without a file it does nothing. Raises UserError, before anything changes:
    no file, another network's.
    """
    if network.weights is None:
        return {}
    path = state_file(network.weights, field=_FIELD, network=network.name)
    state, own = read_state(path, of=network.name), model.state_dict()
    try:
        head = f"{find_head(model)}."
    except ValueError as error:
        raise UserError(f"{_FIELD}: {error}") from error
    taken = {name: value for name, value in state.items() if name in own and not name.startswith(head)}
    problem = _problem(own, state, taken, head=head)
    if problem is not None:
        how = how_to_save(network.name)
        said = f". This makes a file that fits: {how}" if how else ""
        raise UserError(f"{_FIELD}: {path} does not fit {network.name}: {problem}{said}")
    model.load_state_dict(taken, strict=False)
    return {"weights_sha256": file_hash(path)}


def _problem(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], taken: Mapping[str, Tensor], *, head: str
) -> str | None:
    """Returns why a state dict does not fit the network, or None if it does."""
    missing = [n for n in own if n not in taken and not n.startswith(head) and not n.endswith(_COUNT)]
    if missing:
        return f"it has no {missing[0]} ({len(missing)} of {len(own)} are missing)"
    # The file's classifier may be called otherwise, and is then no part of the network.
    parts = {name.partition(".")[0] for name in own}
    other = [name for name in state if name not in own and name.partition(".")[0] in parts]
    if other:
        return f"it also has {other[0]}, which the network does not have ({counted(len(other), 'such name')})"
    for name, value in taken.items():
        if value.shape != own[name].shape:
            return f"{name} is {tuple(value.shape)} there, {tuple(own[name].shape)} here"
        if value.is_floating_point() and not value.isfinite().all():
            return f"{name} is not finite"
    return None
