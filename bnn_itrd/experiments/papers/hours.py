"""Estimates of a training's hours, from measured speeds scaled by the number of multiplications."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bnn_itrd.config.run import MemberConfig
from bnn_itrd.yaml_files import read_yaml

__all__ = ["Expected", "expected_hours", "speed_notes"]

# A step takes a forward pass and twice its time for the gradients; a teacher takes only a forward pass.
_STEP = 3
# A rough time for start, compilation, export and validation of one run.
_FIXED_HOURS = 1 / 60
_CIFAR = 32


@dataclass(frozen=True)
class Expected:
    """The expected hours on an H100 and on two CPU cores; None if there is no measured speed for them."""

    h100: float | None
    cores: float | None

    def __add__(self, other: Expected) -> Expected:
        return Expected(_sum(self.h100, other.h100), _sum(self.cores, other.cores))


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


@cache
def _speeds() -> dict[str, Any]:
    return dict(read_yaml(Path(__file__).with_name("speeds.yaml")))


def speed_notes() -> list[str]:
    """Returns sentences about the source of the hours."""
    return [*_speeds()["notes"]]


def _macs(network: str, width: float, size: int | None) -> float | None:
    """Returns the multiplications for one image of the network in full precision, in its published form."""
    known = _speeds()["macs"].get(network)
    if known is None:
        return None
    scale = 1.0 if size is None or ":" in network else (size / _CIFAR) ** 2
    return float(known) * scale * width**2


def expected_hours(member: MemberConfig, teacher: str | None) -> Expected:
    """Returns the expected hours of one training; teacher: the network that it learns from, or None."""
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
        # A large GPU is not faster on a smaller network, whose time is not spent in multiplications.
        per_s = measured["images_per_s"][kind] * (min(faster, 1.0) if device == "h100" else faster)
        hours.append(seen / per_s / 3600 + _FIXED_HOURS)
    return Expected(*hours)


def _images(member: MemberConfig) -> float | None:
    known = _speeds()["images"].get(member.data.name)
    if known is None:
        return None
    count: float = known["train"] * (1 - member.data.val_fraction)
    if member.data.per_class is not None and not member.data.unlabelled:
        count = min(count, known["classes"] * member.data.per_class)
    return count
