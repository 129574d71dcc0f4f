"""Functions that load a trained network from a run's folder or from a checkpoint file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bnn_itrd.config.addresses import check_trusted, import_address, named_addresses
from bnn_itrd.config.data import MOST_PIXELS
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.data.normalisation import remember_images
from bnn_itrd.errors import FieldError, UserError
from bnn_itrd.runs.comparison_file import best_of_run
from bnn_itrd.runs.identity import layers_hash
from bnn_itrd.runs.member import FIRST_STAGE
from bnn_itrd.runs.networks import build, own_network
from bnn_itrd.training.checkpoint import load_checkpoint

__all__ = ["find_checkpoint", "load_member", "named_network", "no_such_path"]


def _identity(state: dict[str, Any], file: Path) -> dict[str, Any]:
    """Returns the identity in a checkpoint: a dict of the settings, classes and image shape stored with the weights.

    Raises UserError if the file is not a network's checkpoint, or a value in it cannot be right.
    """
    identity, model = state.get("identity"), state.get("model")
    weights = isinstance(model, dict) and all(isinstance(value, Tensor) for value in model.values())
    if not isinstance(identity, dict) or not weights:
        raise UserError(f"{file} is not a checkpoint of a network of bnn-itrd: name a last.pt or best.pt of a run")
    shape, classes = identity.get("input_shape"), identity.get("classes")
    if not _is_shape(shape):
        raise UserError(f"{file}: input_shape must be three whole numbers from 1 to {MOST_PIXELS}, got {shape!r}")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{file}: classes must be a list of names, got {str(classes)[:40]}")
    channels: int = identity["input_shape"][0]
    for key in ("mean", "std"):
        values = identity.get(key, [0.5] * channels)
        if not isinstance(values, list) or len(values) != channels or not all(type(v) in (int, float) for v in values):
            raise UserError(f"{file}: {key} must be {channels} numbers, got {str(values)[:40]}")
    return identity


def _is_shape(shape: object) -> bool:
    """Returns whether a value is an image shape (c, h, w) of reasonable size."""
    if not isinstance(shape, (list, tuple)) or len(shape) != 3:
        return False
    return all(type(size) is int and 1 <= size <= MOST_PIXELS for size in shape)


def _from_identity(identity: dict[str, Any], where: Path, trust: bool | Collection[str]) -> nn.Module:
    """Builds the untrained network of a checkpoint.

    identity: the settings stored in it; where: its path, for messages; trust: as in `load_member`. Raises UserError as
    that does.
    """
    made = identity if "network" in identity else identity.get("made_by") or {}
    shape = tuple(identity["input_shape"])
    if "network" in made:
        network, scheme = made["network"], made.get("scheme")
        if not isinstance(network, dict) or not isinstance(network.get("name"), str):
            raise UserError(f"{where} does not say how its network is made: its `network` is {str(network)[:40]!r}")
        for named in sorted(named_addresses([network, scheme])):
            check_trusted(named, trust, where=str(where))
        try:
            return build(
                NetworkConfig(**network),
                None if scheme is None else SchemeConfig(**scheme),
                num_classes=len(identity["classes"]),
                input_shape=shape,
            )
        except FieldError as error:
            raise UserError(f"{where}: {error}") from error
        except TypeError as error:
            raise UserError(f"{where} was written by another version of bnn-itrd: {error}") from error
    address: str | None = made.get("address")
    if address is None:
        raise UserError(
            f"{where} has a network of your own, {identity.get('custom_network', 'unnamed')}, but does not say where "
            "its code is: name a function that makes one with --model package.module:NAME, or in Python pass "
            "model=... to bnn_itrd.load"
        )
    check_trusted(address, trust, where=str(where))
    network = named_network(address, identity, what=f"{where}: {address}")
    _check_layers(network, identity, address, where)
    return network


def _check_layers(network: nn.Module, identity: dict[str, Any], address: str, where: Path) -> None:
    """Raises UserError if the network made by the code at `address` has other layers than the trained one.

    identity: the settings stored in the checkpoint, with a hash of the trained layers; where: its path.
    """
    trained = identity.get("layers_sha256")
    if trained is not None and layers_hash(network) != trained:
        raise UserError(
            f"{where}: {address} makes another network than the one that was trained (other layers, sizes or options): "
            "name a function that makes that one with --model package.module:NAME, or pass model=... to bnn_itrd.load"
        )


def named_network(address: str, identity: dict[str, Any], *, what: str) -> nn.Module:
    """Builds a user's network, untrained, by calling the class or function at an address (``mypkg.nets:make``).

    It gets num_classes and input_shape, if its signature names them. identity: the settings stored in the checkpoint,
    from which these values come. what: the field that
    gave the address, for messages. Raises UserError if it cannot be imported, fails, or does not return a network.
    """
    make = import_address(address, what=what)
    shape = tuple(identity["input_shape"])
    return own_network(make, num_classes=len(identity["classes"]), input_shape=shape, options={}, what=what)


def no_such_path(path: Path) -> UserError:
    """Returns an error that says that a path does not exist; in a run's folder it also names the networks there."""
    members = sorted({p.parent.name for p in path.parent.glob("*/last.pt")})
    if not members:
        return UserError(f"no such file or folder: {path}")
    near = difflib.get_close_matches(path.name, members, n=1, cutoff=0.5)
    hint = f"; did you mean {path.parent / near[0]}?" if near else ";"
    return UserError(f"no such file or folder: {path}{hint} {path.parent} holds {', '.join(members)}")


def find_checkpoint(path: Path, *, prefer: str = "last.pt", say: Callable[[str], None] | None = None) -> Path:
    """Returns the checkpoint that a path stands for: a checkpoint file, a network's folder, or a run's folder.

    For a run's folder it is the checkpoint of the run's only student. If there are several, it is that of the student
    with the highest top-1, and `say` is called with a line that names it; without `say` that is an error.
    prefer: the file's name, last.pt or best.pt. Raises UserError if there is no checkpoint, or it cannot be chosen.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise no_such_path(path)
    if (path / prefer).is_file():
        return path / prefer
    members = sorted(p.parent.name for p in path.glob(f"*/{prefer}"))
    if members == [FIRST_STAGE]:
        raise UserError(
            f"{path} has only a checkpoint of its first training stage: name {path / FIRST_STAGE} to use that one, or "
            "call the same training again to continue it"
        )
    students = [name for name in members if name != "teacher"] or members
    if len(students) == 1:
        return path / students[0] / prefer
    if not members:
        raise UserError(f"{path} has no checkpoint {prefer}: is it the folder of a run?")
    best = None if say is None else best_of_run(path, members, say=say)
    if best is not None:
        return path / best / prefer
    raise UserError(
        f"no {prefer} in {path}, but in the folders of its networks {', '.join(members)}: name one of these, such as "
        f"{path / students[-1]}"
    )


def load_member(
    path: Path | str,
    *,
    model: nn.Module | str | None = None,
    best: bool = False,
    trust: bool | Collection[str] = False,
    say: Callable[[str], None] | None = None,
) -> tuple[nn.Module, dict[str, Any], Path]:
    """Loads a trained network from a run's folder or a checkpoint; returns (network in eval mode, identity, file).

    The identity is a dict of the settings, classes and image shape stored with the weights.
    model: for a network of the user's own: an instance, into which the weights are loaded, or the address of a function
    that makes one. best: True: the weights of the epoch with the best top-1, False: those of the last. trust: True, or
    the addresses of a user's code that may be imported though only the checkpoint names it. say: as in
    `find_checkpoint`. Raises UserError if there is no checkpoint, it is damaged or of a newer version of this package,
    its weights do not fit the network, or it needs code that is not trusted.
    """
    file = find_checkpoint(Path(path), prefer="best.pt" if best else "last.pt", say=say)
    state = load_checkpoint(file)
    identity = _identity(state, file)
    if type(epoch := state.get("epoch")) is int and epoch == 0:
        raise UserError(
            f"{file} has no finished epoch of training yet, only its distillers' preparation: call the same command "
            "again to continue it"
        )
    if isinstance(model, str):
        network = named_network(model, identity, what=f"model {model}")
        _check_layers(network, identity, model, file)
    else:
        network = _from_identity(identity, file, trust) if model is None else model
    try:
        network.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = str(error).splitlines()
        detail = "; ".join(line.strip() for line in lines[1:3])
        own = model is None and "network" not in identity
        hint = "; name a function that makes this one with --model package.module:NAME" if own else ""
        raise UserError(f"{file} has another architecture than {type(network).__name__}: {detail}{hint}") from error
    if "mean" in identity and "std" in identity:
        remember_images(network, mean=identity["mean"], std=identity["std"], classes=identity["classes"])
    return network.eval(), identity, file
