"""Functions that load a trained teacher from a run, from torchvision, or from timm."""

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
    """Loads a trained teacher, in eval mode; its classes and its image shape must be those of the data.

    address: a run's folder, a checkpoint, ``torchvision:NAME`` or ``timm:NAME``. weights: for a library's network: the
    file with its state dict. normalization: whose mean and std its images get: 'own': those of its training; 'data':
    those of the data (for a library's network only). other_classes: True: its classes may be others, which suits
    students that do not compare logits. trust: True, or the addresses of a user's code that may be imported though only
    the teacher's folder names it. Raises UserError if it does not exist, is not trained to its end, or does not fit.
    """
    library, colon, _ = address.partition(":")
    if colon and library in LIBRARIES:
        return _of_library(address, weights, data, normalization=normalization, other_classes=other_classes)
    if colon and not Path(address).exists() and library.isalpha() and len(library) > 1:
        raise unknown("library of teachers", library, LIBRARIES)
    if weights is not None:
        raise UserError(f"teacher_weights is for torchvision:NAME and timm:NAME: leave it out, {address} has weights")
    if normalization != "own":
        raise UserError(
            f"teacher_normalization {normalization} is only for torchvision:NAME and timm:NAME: leave it out. The "
            f"teacher {address} always gets images with the mean and std of its own training"
        )
    path = Path(address)
    if (path / "teacher" / "last.pt").is_file() or (not (path / "last.pt").is_file() and (path / "teacher").is_dir()):
        path = path / "teacher"
    model, identity, file = load_member(path, trust=trust)
    state = load_checkpoint(file)
    done, planned = state.get("epoch"), identity.get("train", {}).get("epochs")
    if done is not None and planned is not None and done < planned and file.name == "last.pt":
        raise UserError(
            f"teacher {file} is at epoch {done} of {planned}: finish its training first, or give its best.pt instead"
        )
    if identity.get("input_shape") != list(data.input_shape):
        raise UserError(
            f"teacher {file} was trained on images of shape {identity.get('input_shape')}, but the data has images of "
            f"shape {list(data.input_shape)}: set data.image_size, or take another teacher"
        )
    other = identity.get("classes") != list(data.classes)
    if other and not other_classes:
        raise UserError(
            f"teacher {file} was trained for classes {_few(identity.get('classes') or [])}, but the data has "
            f"{_few(data.classes)}: only students without kd, dkd and dist, which compare logits, can learn "
            "from it (lwf does not need the same classes)"
        )
    network = identity["network"]["name"] if "network" in identity else type(model).__name__
    seen = identity.get("data")
    return Member("teacher", model, "teacher", network, file, other_task=other, data=seen, top1=_top1(state))


def _of_library(
    address: str, weights: str | None, data: ImageData, *, normalization: str, other_classes: bool
) -> Member:
    """Does the work of `load_teacher` for a network of torchvision or timm."""
    model, classes = foreign(address, weights, num_classes=len(data.classes), other_classes=other_classes)
    try:
        find_head(model)
    except ValueError as error:
        raise UserError(f"teacher {address}: {error}") from error
    if normalization == "own":
        mean, std = library_statistics(model)
        remember_images(model, mean=mean, std=std)
    return Member("teacher", model.eval(), "teacher", address, other_task=classes != len(data.classes))


def _top1(state: Mapping[str, Any]) -> float | None:
    """Returns the top-1 in percent that a checkpoint records, last.pt in its last epoch, best.pt itself; None without.

    state: the checkpoint's content.
    """
    history = state.get("history")
    rows = [*(history if isinstance(history, list) else []), state]
    known = [row["top1"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("top1"), float)]
    return known[-1] if known else None


def load_given_teacher(
    config: RunConfig, data: ImageData, *, other_classes: bool = False, trust: bool | Collection[str] = False
) -> Member:
    """Loads the teacher that a configuration names in its fields `teacher*`; otherwise as `load_teacher`."""
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
    """Returns the first eight names as text, with the number of the others."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{list(names[:8])}{more}"


def library_statistics(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and std, a number per channel, with which a network of torchvision or timm was trained.

    timm stores them in the network. torchvision does not, but its networks all have those of ImageNet.
    """
    recorded: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    return tuple(recorded.get("mean", MEAN)), tuple(recorded.get("std", STD))


def foreign(
    address: str, weights: str | None, *, num_classes: int, other_classes: bool = False
) -> tuple[nn.Module, int]:
    """Builds a network of torchvision or timm and loads its weights from a local file; nothing is downloaded.

    address: ``torchvision:NAME`` or ``timm:NAME``. weights: the file with the state dict. Returns the network and its
    number of classes, which is num_classes or, if `other_classes` is True, that of the file.
    Raises UserError if the name is unknown, the file is missing, or the state dict does not fit.
    """
    model = untrained_network(address, num_classes=num_classes)
    if weights is None:
        how = f"; this command makes the file: {how_to_save(address)}"
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
