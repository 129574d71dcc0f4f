"""Calls a user's own distiller once on random network outputs, to find its faults before anything is trained."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

from bnn_itrd.distillers.base import Distiller
from bnn_itrd.distillers.setting import Setting, Sizes
from bnn_itrd.errors import UserError
from bnn_itrd.models import Outputs

__all__ = ["try_out"]

_SAMPLES = 8
T = TypeVar("T")


def _outputs(sizes: Sizes, generator: torch.Generator) -> Outputs:
    """Returns random outputs of a network for 8 samples.

    The logits are normally distributed; representation and stages are in [0, 1), because a ReLU comes before them.
    """
    logits = torch.randn(_SAMPLES, sizes.logits, generator=generator)
    representation = torch.rand(_SAMPLES, sizes.representation, generator=generator)
    return Outputs(
        logits, representation, tuple(torch.rand(_SAMPLES, *shape, generator=generator) for shape in sizes.stages)
    )


def try_out(name: str, own: Distiller, setting: Setting) -> None:
    """Calls a copy of a user's own distiller on eight made-up samples; raises UserError if that shows a fault.

    >>> sizes = Sizes(logits=10, representation=64, stages=())
    >>> try_out("mine", Distiller(), Setting(sizes, sizes, torch.zeros(0)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: mine failed on eight made-up samples: NotImplementedError: Distiller has no forward(...)

    The faults are: an exception, a result that is not a scalar or not finite, and a loss that does not depend on the
    student's outputs. `name` is the distiller's name, for the message. The outputs are random, labels and indices those
    of the data. The distiller itself and torch's random state stay as they are. With several processes nothing is
    called, because a distiller that communicates would wait for the others.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.enable_grad():
        try:
            # A distiller that cannot be copied is not tried: the first training step shows whether it works.
            trial = copy.deepcopy(own).cpu().train()
        except Exception:
            return
        _try(name, trial, setting)


def _try(name: str, own: Distiller, setting: Setting) -> None:
    generator = torch.Generator("cpu").manual_seed(0)
    student, teacher = _outputs(setting.student, generator), _outputs(setting.teacher, generator)
    leaves = [student.logits, student.representation, *student.stages]
    for leaf in leaves:
        leaf.requires_grad_()
    count = len(setting.labels)
    indices = torch.linspace(0, max(count - 1, 0), _SAMPLES).long() if count else torch.arange(_SAMPLES)
    labels = setting.labels.cpu()[indices] if count else indices % setting.student.logits
    if own.preparation_epochs:
        passed = student if own.prepares_student else None
        _checked(name, lambda: own.prepare(passed, teacher, labels, indices))
        _guarded(name, own.prepared)
    if own.only_prepares:
        return
    value = _checked(name, lambda: own(student, teacher, labels, indices))
    if own.watches:
        with torch.no_grad():
            _check_watched(name, _guarded(name, lambda: own.watch(student, teacher)))
    learned = value.requires_grad and _guarded(name, lambda: torch.autograd.grad(value, leaves, allow_unused=True))
    if not learned or all(gradient is None for gradient in learned):
        raise UserError(
            f"{name} returned a loss that does not depend on the student's outputs, so the student would learn nothing "
            "from it: look for .detach(), .item() or no_grad() in its code"
        )


def _checked(name: str, call: Callable[[], Tensor]) -> Tensor:
    value = _guarded(name, call)
    if not torch.isfinite(value):
        raise UserError(
            f"{name} returned {float(value.detach())} on eight made-up samples (logits from a normal distribution, "
            "representation and stages between 0 and 1): it must return a finite number"
        )
    return value


def _check_watched(name: str, watched: object) -> None:
    if not isinstance(watched, dict):
        raise UserError(
            f"{name}'s method watch returned a {type(watched).__name__}: it must return a dict of name -> tensor of "
            "shape ()"
        )
    for key, value in watched.items():
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.ndim == 0):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{name}'s method watch returned {got} for {key!r}: each value must be a tensor of shape (), under a "
                "name that is a string"
            )


def _guarded(name: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f for f in frames if not {"site-packages", "bnn_itrd"} & {*Path(f.filename).parts}]
        where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
        raise UserError(f"{name} failed on eight made-up samples: {type(error).__name__}: {error}{where}") from error
