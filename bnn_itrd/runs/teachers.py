"""Functions that load a trained teacher from a run, torchvision or timm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bnn_itrd.config.addresses import LIBRARIES
from bnn_itrd.config.run import RunConfig
from bnn_itrd.data.images import MEAN, STD
from bnn_itrd.data.normalisation import remember_images
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.models import find_head
from bnn_itrd.runs.given.state_files import how_to_save, read_state, state_file
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.member import Member
from bnn_itrd.runs.networks import untrained_network
from bnn_itrd.training.checkpoint import load_checkpoint

__all__ = ["foreign", "library_statistics", "load_given_teacher", "load_teacher"]


def load_teacher(
    address: str,
    weights: str | None,
    data: ImageData,
    *,
    normalization: str = "own",
    other_classes: bool = False,
    trust: bool | Collection[str] = False,
) -> Member:
    """Loads a trained teacher: a run folder (its teacher), a checkpoint, torchvision:NAME or timm:NAME.

    weights: the state dict of a library's network. normalization: 'own': its images are normalised with mean and std
    of its run, or of its library (mostly ImageNet's); 'data': with those of the data, for a library's network that was
    trained so. other_classes: it may have other classes than the data, for students that do not compare logits. trust:
    True, or addresses of the user's own code that may be imported although only the teacher's folder names them.
    Raises UserError if it does not exist, is not trained to its end, or has other classes or another image shape.
    """
    library, colon, _ = address.partition(":")
    if colon and library in LIBRARIES:
        model, classes = foreign(address, weights, num_classes=len(data.classes), other_classes=other_classes)
        try:
            find_head(model)
        except ValueError as error:
            raise UserError(f"teacher {address}: {error}") from error
        if normalization == "own":
            mean, std = library_statistics(model)
            remember_images(model, mean=mean, std=std)
        return Member("teacher", model.eval(), "teacher", address, other_task=classes != len(data.classes))
    if colon and not Path(address).exists() and library.isalpha() and len(library) > 1:
        raise unknown("library of teachers", library, LIBRARIES)
    if weights is not None:
        raise UserError(f"teacher_weights belong to torchvision:NAME and timm:NAME; teacher {address} has its own")
    if normalization != "own":
        raise UserError(
            f"teacher_normalization {normalization} is for torchvision:NAME and timm:NAME; teacher {address} keeps the "
            "statistics of its own training"
        )
    path = Path(address)
    if (path / "teacher" / "last.pt").is_file() or (not (path / "last.pt").is_file() and (path / "teacher").is_dir()):
        path = path / "teacher"
    model, identity, file = load_member(path, trust=trust)
    done, planned = load_checkpoint(file).get("epoch"), identity.get("train", {}).get("epochs")
    if done is not None and planned is not None and done < planned and file.name == "last.pt":
        raise UserError(
            f"teacher {file} is at epoch {done} of {planned}: finish its training first, or name its best.pt"
        )
    if identity.get("input_shape") != list(data.input_shape):
        raise UserError(
            f"teacher {file} was trained for input_shape {identity.get('input_shape')}, but the data has "
            f"{list(data.input_shape)}"
        )
    other = identity.get("classes") != list(data.classes)
    if other and not other_classes:
        raise UserError(
            f"teacher {file} was trained for classes {_few(identity.get('classes') or [])}, but the data has "
            f"{_few(data.classes)}: only students without kd, dkd and dist, which compare logits, can learn "
            "from it (lwf does not need the same classes)"
        )
    network = identity["network"]["name"] if "network" in identity else type(model).__name__
    return Member("teacher", model, "teacher", network, file, other_task=other)


def load_given_teacher(
    config: RunConfig, data: ImageData, *, other_classes: bool = False, trust: bool | Collection[str] = False
) -> Member:
    """Loads the teacher that a configuration names, as `load_teacher` does."""
    assert config.teacher is not None
    return load_teacher(
        config.teacher,
        config.teacher_weights,
        data,
        normalization=config.teacher_normalization,
        other_classes=other_classes,
        trust=trust,
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{list(names[:8])}{more}"


def library_statistics(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and standard deviation with which a library normalises a network's images.

    timm records them in the network; torchvision's networks all have ImageNet's.
    """
    recorded: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    return tuple(recorded.get("mean", MEAN)), tuple(recorded.get("std", STD))


def foreign(
    address: str, weights: str | None, *, num_classes: int, other_classes: bool = False
) -> tuple[nn.Module, int]:
    """Loads ``torchvision:NAME`` or ``timm:NAME`` with its state dict from a local file; nothing is downloaded.

    Returns the network and its number of classes: num_classes or, with `other_classes`, that of the file.
    Raises UserError: an unknown name, a missing file, a state dict that does not fit.
    """
    model = untrained_network(address, num_classes=num_classes)
    if weights is None:
        how = f"; this makes the file: {how_to_save(address)}"
        raise UserError(f"teacher {address!r} is untrained: give its state dict with --teacher_weights FILE{how}")
    path = state_file(weights, field="teacher_weights", network=address)
    state = read_state(path, of=f"{address} with {num_classes} classes")
    try:
        if other_classes:
            # The number of classes in the file is the number of rows of its classifier.
            head = state.get(f"{find_head(model)}.weight")
            if head is not None and len(head) != num_classes:
                num_classes = len(head)
                model = untrained_network(address, num_classes=num_classes)
        model.load_state_dict(state)
    except Exception as error:
        raise UserError(f"{weights} is not the state dict of {address} with {num_classes} classes: {error}") from error
    return model, num_classes
