"""A trial of a user's own distiller with random outputs of both networks, before anything is trained."""

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
    """Returns normally distributed logits, and a representation and maps in [0, 1), as behind a ReLU."""
    logits = torch.randn(_SAMPLES, sizes.logits, generator=generator)
    representation = torch.rand(_SAMPLES, sizes.representation, generator=generator)
    return Outputs(
        logits, representation, tuple(torch.rand(_SAMPLES, *shape, generator=generator) for shape in sizes.stages)
    )


def try_out(name: str, own: Distiller, setting: Setting) -> None:
    """Calls a copy of a user's own distiller on eight made-up samples, without a change to it or to the random state.

    >>> sizes = Sizes(logits=10, representation=64, stages=())
    >>> try_out("mine", Distiller(), Setting(sizes, sizes, torch.zeros(0)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: mine failed on eight made-up samples: NotImplementedError: Distiller has no forward(...)

    Labels and indices are those of the data. There is no trial in a training with several processes, which could wait
    for each other. Raises UserError where it fails, returns no scalar or a number that is not finite, and where the
    result does not depend on the student.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.enable_grad():
        try:
            # Where it cannot be copied there is no trial, and the first step shows whether it works.
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
            f"{name} gave a loss that does not depend on the student's outputs, so nothing would be learned from "
            "it: is there a .detach(), .item() or no_grad() in it?"
        )


def _checked(name: str, call: Callable[[], Tensor]) -> Tensor:
    value = _guarded(name, call)
    if not torch.isfinite(value):
        raise UserError(
            f"{name} gave {float(value.detach())} on eight made-up samples (logits of a normal distribution, "
            "representation and maps between 0 and 1): it must be finite"
        )
    return value


def _check_watched(name: str, watched: object) -> None:
    if not isinstance(watched, dict):
        raise UserError(f"{name}'s watch returned a {type(watched).__name__}: it must return a dict, name -> tensor ()")
    for key, value in watched.items():
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.ndim == 0):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"{name}'s watch returned {got} for {key!r}: each value must be a tensor of shape ()")


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
