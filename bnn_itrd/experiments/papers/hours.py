"""Functions that estimate the hours of a training from measured speeds, scaled by the network's multiplications."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bnn_itrd.config.run import MemberConfig
from bnn_itrd.yaml_files import read_yaml

__all__ = ["Expected", "expected_hours", "speed_notes"]

# A training step costs as much as three forward passes, because the gradients cost two. A teacher costs one more.
_STEP = 3
# A rough time for a run's start, compilation, export and validation.
_FIXED_HOURS = 1 / 60
# The image size, in pixels, for which speeds.yaml has the multiplications.
_CIFAR = 32


@dataclass(frozen=True)
class Expected:
    """The hours that a training should take on an H100 GPU (h100) and on two CPU cores (cores); None if unknown."""

    h100: float | None
    cores: float | None

    def __add__(self, other: Expected) -> Expected:
        """Returns the sum of both, in which an unknown number makes the sum unknown."""
        return Expected(_sum(self.h100, other.h100), _sum(self.cores, other.cores))


def _sum(a: float | None, b: float | None) -> float | None:
    """Returns a + b, or None if one of them is None."""
    return None if a is None or b is None else a + b


@cache
def _speeds() -> dict[str, Any]:
    """Returns the content of speeds.yaml: measured training speeds, multiplications of networks, sizes of data sets."""
    return dict(read_yaml(Path(__file__).with_name("speeds.yaml")))


def speed_notes() -> list[str]:
    """Returns sentences for the user that say how the hours were estimated."""
    return [*_speeds()["notes"]]


def _macs(network: str, width: float, size: int | None) -> float | None:
    """Returns the multiplications of a full-precision network for one image; None if it is not in speeds.yaml.

    width: the factor of its channels; size: the image size in pixels, None for that of CIFAR.
    """
    known = _speeds()["macs"].get(network)
    if known is None:
        return None
    scale = 1.0 if size is None or ":" in network else (size / _CIFAR) ** 2
    return float(known) * scale * width**2


def expected_hours(member: MemberConfig, teacher: str | None) -> Expected:
    """Returns the hours that one training should take; teacher: the name of its teacher's network, or None."""
    images = _images(member)
    size, width = member.data.image_size, member.network.width
    own, taught = _macs(member.network.name, width, size), 0.0
    if teacher is not None:
        known = _macs(teacher, width, size)
        own, taught = (None, 0.0) if known is None else (own, known)
    if own is None or images is None:
        return Expected(None, None)
    kind = "teacher" if member.scheme is None else "student"
    kind = kind if teacher is None else "distilled"
    work = _STEP * own + taught
    stage = 0 if member.scheme is None else member.scheme.first_stage_epochs
    seen = images * (member.train.epochs + stage)
    hours = []
    for device in ("h100", "cores" if member.train.compile else "cores_not_compiled"):
        measured = _speeds()[device]
        of_it = _STEP * measured["macs"] + (measured["macs"] if teacher is not None else 0.0)
        faster = of_it / work
        # A large GPU is not faster on a smaller network, because such a network does not keep it busy.
        per_s = measured["images_per_s"][kind] * (min(faster, 1.0) if device == "h100" else faster)
        hours.append(seen / per_s / 3600 + _FIXED_HOURS)
    return Expected(*hours)


def _images(member: MemberConfig) -> float | None:
    """Returns the number of training images of an epoch; None if the data set is not in speeds.yaml."""
    known = _speeds()["images"].get(member.data.name)
    if known is None:
        return None
    count: float = known["train"] * (1 - member.data.val_fraction)
    if member.data.per_class is not None and not member.data.unlabelled:
        count = min(count, known["classes"] * member.data.per_class)
    return count
