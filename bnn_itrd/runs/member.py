"""The training of one network of a run in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from bnn_itrd.config.run import MemberConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.normalisation import seen_as_trained
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.environment import environment
from bnn_itrd.errors import UserError
from bnn_itrd.files import write_json, write_yaml
from bnn_itrd.quant import load_stage, take_weights
from bnn_itrd.runs.given.first_weights import begin_with_weights
from bnn_itrd.runs.identity import data_identity, teacher_hash
from bnn_itrd.runs.networks import build
from bnn_itrd.training.fit import Fitted, fit
from bnn_itrd.training.step.nonfinite import check_weights_finite

__all__ = ["FIRST_STAGE", "Member", "check_first_weights", "check_from_teacher", "train_member"]


# The folder, inside a network's, of the first of two training stages.
FIRST_STAGE = "first-stage"


@dataclass(frozen=True)
class Member:
    """A trained network in eval mode.

    method: 'teacher' or the student's name; network: its architecture ('resnet20', 'torchvision:resnet18');
    checkpoint: None for a network of another library; fitted: its training, if this command trained it; other_task: a
    teacher of other classes, whose logits cannot be compared with those of its students.
    """

    name: str
    model: nn.Module
    method: str
    network: str
    checkpoint: Path | None = None
    fitted: Fitted | None = None
    other_task: bool = False


def train_member(
    config: MemberConfig,
    data: ImageData,
    teacher: nn.Module | None,
    *,
    fabric: Fabric,
    out: Path,
    deadline: float | None = None,
) -> Member:
    """Trains a network of a run in its folder, or continues there. Raises UserError as `fit` and `build` do.

    In two-stage training the network is first trained with the binariser of the first stage, in `out`/first-stage; the
    second stage starts from those weights.
    """
    torch.manual_seed(mix_seed(config.train.seed, 0))
    model = build(
        config.network,
        config.scheme,
        num_classes=len(data.classes),
        input_shape=data.input_shape,
    )
    identity = to_dict(config) | begin_with_weights(model, config.network)
    if config.needs_teacher:
        if teacher is None:
            raise UserError(f"{config.name} needs a teacher: give --teacher PATH, or train it in the same run")
        identity["teacher_sha256"] = teacher_hash(teacher, data)
        if config.scheme is not None and config.scheme.from_teacher:
            check_weights_finite("teacher", teacher)
            _begin_as(teacher.state_dict(), model, config.name)
    identity |= data_identity(data)
    # A run that is past its first stage continues with its own state.
    if (first := config.of_first_stage()) is not None and not (out / "last.pt").exists():
        stage = train_member(first, data, teacher, fabric=fabric, out=out / FIRST_STAGE, deadline=deadline)
        load_stage(model, stage.model.state_dict())

    def begin() -> None:
        write_yaml(out / "config.yaml", identity)
        write_json(out / "environment.json", environment(fabric.device))

    with seen_as_trained(teacher, data):
        fitted = fit(
            model,
            teacher,
            data,
            train=config.train,
            distill=config.distill,
            fabric=fabric,
            log=config.log,
            out=out,
            identity=identity,
            title=config.name,
            begin=begin,
            deadline=deadline,
        )
    return Member(config.name, fitted.model, config.name, config.network.name, out / "last.pt", fitted)


def check_first_weights(config: MemberConfig, data: ImageData) -> None:
    """Raises UserError where a student is to begin with weights that are not its network's, or not there."""
    if config.network.weights is not None:
        sizes: dict[str, Any] = {"num_classes": len(data.classes), "input_shape": data.input_shape}
        with torch.random.fork_rng(devices=[]):
            begin_with_weights(build(config.network, config.scheme, **sizes), config.network)


def check_from_teacher(config: MemberConfig, teacher: MemberConfig | nn.Module, data: ImageData) -> None:
    """Raises UserError if a student should begin with its teacher's weights, but the teacher has other layers.

    Networks are built on the meta device for this, before anything is trained. A user's own code that fails on the meta
    device is checked when the student is built.
    """
    if config.scheme is None or not config.scheme.from_teacher:
        return
    sizes: dict[str, Any] = {"num_classes": len(data.classes), "input_shape": data.input_shape}
    try:
        with torch.device("meta"):
            student = build(config.network, config.scheme, **sizes)
            if isinstance(teacher, MemberConfig):
                teacher = build(teacher.network, teacher.scheme, **sizes)
            _begin_as({name: v.to("meta") for name, v in teacher.state_dict().items()}, student, config.name)
    except UserError:
        raise
    except Exception:
        return


def _begin_as(teacher: Mapping[str, Tensor], model: nn.Module, name: str) -> None:
    """Copies a teacher's state into a student. Raises UserError if the teacher has other layers."""
    try:
        take_weights(model, teacher)
    except ValueError as error:
        raise UserError(f"scheme.from_teacher: {name}: {error}") from error
