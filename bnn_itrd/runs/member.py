"""A network of a run (a "member": the teacher or a student), and the function that trains it in its folder."""

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

__all__ = ["FIRST_STAGE", "Member", "check_from_teacher", "train_member"]


# In two-stage training, the first stage's folder inside the network's folder.
FIRST_STAGE = "first-stage"


@dataclass(frozen=True)
class Member:
    """A trained network of a run, in eval mode: its teacher or one of its students.

    method: 'teacher', or the student's name; network: its architecture ('resnet20', 'torchvision:resnet18');
    checkpoint: its file, None for a network of another library; fitted: the result of its training, None if an earlier
    call trained it; other_task: True for a teacher with other classes than the data, whose logits cannot be compared
    with its students'. data: the settings of the data that it was trained on, as a nested dict; top1: its accuracy in
    percent in the last evaluation of its training; both are None for a network of another library.
    """

    name: str
    model: nn.Module
    method: str
    network: str
    checkpoint: Path | None = None
    fitted: Fitted | None = None
    other_task: bool = False
    data: Mapping[str, Any] | None = None
    top1: float | None = None

    def as_teacher(self) -> dict[str, Any]:
        """Returns what the config.yaml of its students says about it: its network, its top-1, and its data."""
        data = dict(self.data) if isinstance(self.data, Mapping) else None
        return {"network": self.network, "top1": self.top1, "data": data}


def train_member(
    config: MemberConfig,
    data: ImageData,
    teacher: Member | None,
    *,
    fabric: Fabric,
    out: Path,
    deadline: float | None = None,
) -> Member:
    """Trains one network of a run in the folder `out`, or continues its training there, and returns it.

    The folder's config.yaml has its settings and, if it has a teacher, the result of `Member.as_teacher` for that. In
    two-stage training the network is first trained with the binarisers of the first stage, in `out`/first-stage; the
    second stage starts from those weights. deadline: a time of `time.monotonic`.
    Raises UserError as `fit` and `build` do, Unfinished if the next epoch would end after the deadline.
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
        identity["teacher_sha256"] = teacher_hash(teacher.model, data)
        if config.scheme is not None and config.scheme.from_teacher:
            check_weights_finite("teacher", teacher.model)
            _begin_as(teacher.model.state_dict(), model, config.name)
    identity |= data_identity(data)
    # If last.pt exists, the second stage has begun, so the first one is not needed again.
    if (first := config.of_first_stage()) is not None and not (out / "last.pt").exists():
        stage = train_member(first, data, teacher, fabric=fabric, out=out / FIRST_STAGE, deadline=deadline)
        load_stage(model, stage.model.state_dict())

    def begin() -> None:
        """Writes the settings and the environment into the folder, when the training begins."""
        told = {"teacher": teacher.as_teacher()} if teacher is not None and config.needs_teacher else {}
        write_yaml(out / "config.yaml", identity | told)
        write_json(out / "environment.json", environment(fabric.device))

    source = None if teacher is None else teacher.model
    with seen_as_trained(source, data):
        fitted = fit(
            model, source, data, train=config.train, distill=config.distill, fabric=fabric, log=config.log, out=out,
            identity=identity, title=config.name, begin=begin, deadline=deadline,
        )  # fmt: skip
    name, network, top1 = config.name, config.network.name, fitted.history[-1]["top1"]
    return Member(name, fitted.model, name, network, out / "last.pt", fitted, data=to_dict(config.data), top1=top1)


def check_from_teacher(config: MemberConfig, teacher: MemberConfig | nn.Module, data: ImageData) -> None:
    """Raises UserError if a student should begin with its teacher's weights, but the teacher's layers do not fit.

    It is called before anything is trained, and builds the networks on the meta device. If a user's own code fails on
    that device, nothing is raised here: the check is made again when the student is trained.
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
    """Copies a teacher's weights into a student called `name`. Raises UserError if the teacher's layers do not fit."""
    try:
        take_weights(model, teacher)
    except ValueError as error:
        raise UserError(f"scheme.from_teacher: {name}: {error}") from error
