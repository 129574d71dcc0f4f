"""The Python interface: what the command line does, with your own networks and data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig, ITRDConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.errors import UserError
from bnn_itrd.files import write_json, write_yaml
from bnn_itrd.runs.identity import data_identity, weights_hash
from bnn_itrd.runs.load import load_member
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import Fitted, fit

__all__ = ["distill", "load"]


def distill(
    student: nn.Module,
    teacher: nn.Module | None,
    data: ImageData | DataConfig | str = "digits",
    *,
    train: TrainConfig | None = None,
    distill: DistillConfig | None = None,
    out: str | Path = "runs/distill",
    fabric: FabricConfig | None = None,
    log: LogConfig | None = None,
) -> Fitted:
    """Trains a student on labels and a teacher, exactly as the command does; the student is changed in place.

    student, teacher: any classifiers of the data's classes, (n, c, h, w) -> (n, classes). A teacher of None trains on
    labels alone; another is put in eval mode and moved to the device. data: a name ('digits'), a `DataConfig` or loaded
    `ImageData`. distill: ITRD with the paper's weights by default. The run goes into the folder `out`; the same call
    continues it there.
    Returns `Fitted`: the trained model, the history per epoch, the last evaluation.
    Raises UserError: bad configuration, a student that does not answer with (n, classes) or is its own teacher, another
    run in `out`, a loss that is not finite.
    """
    from bnn_itrd.environment import environment

    if student is teacher:
        raise UserError("student and teacher are the same network: give a copy, copy.deepcopy(student), as the teacher")

    if isinstance(data, str):
        data = DataConfig(name=data, crop_padding=1, flip=False) if data == "digits" else DataConfig(name=data)
    source: dict[str, Any] | None = None
    if isinstance(data, DataConfig):
        source, data = to_dict(data), load_data(data)
    train = TrainConfig() if train is None else train
    if distill is None:
        distill = DistillConfig(itrd=ITRDConfig()) if teacher is not None else DistillConfig()
    _check_student(student, data)
    launched = make_fabric(fabric or FabricConfig(), precision=train.precision)
    folder = Path(out)
    identity = {
        "name": folder.name,
        "data": source or {"name": data.name},
        "custom_network": type(student).__name__,
        # Every layer with its sizes, scheme and padding: another network of the same class is another run.
        "layers_sha256": hashlib.sha256(repr(student).encode()).hexdigest(),
        "train": to_dict(train),
        "distill": to_dict(distill),
        **data_identity(data),
    }
    if distill.needs_teacher and teacher is not None:
        identity["teacher_sha256"] = weights_hash(teacher)

    def begin() -> None:
        write_yaml(folder / "config.yaml", identity)
        write_json(folder / "environment.json", environment(launched.device))

    torch.manual_seed(train.seed)
    return fit(
        student,
        teacher,
        data,
        train=train,
        distill=distill,
        fabric=launched,
        log=log or LogConfig(),
        out=folder,
        identity=identity,
        title=folder.name,
        begin=begin,
    )


@torch.no_grad()
def _check_student(student: nn.Module, data: ImageData) -> None:
    """Raises UserError unless the network gives a logit for each class, of two empty images in evaluation mode."""
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    was_training = student.training
    student.eval()
    try:
        logits = student(torch.zeros(2, *data.input_shape, device=device))
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        size = "x".join(map(str, data.input_shape))
        raise UserError(f"{type(student).__name__} cannot be used on images of {size}: {first}") from error
    finally:
        student.train(was_training)
    wanted = (2, len(data.classes))
    got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != wanted:
        raise UserError(
            f"{type(student).__name__} must give a logit for each class of {data.name}: {wanted} of two images, "
            f"got {got}"
        )


def load(path: str | Path, *, model: nn.Module | None = None, best: bool = False) -> nn.Module:
    """The trained network of a run folder or checkpoint, in eval mode on the CPU.

    model: a network of your own to fill, where the run was made with one (`distill`). best: the best epoch's weights
    instead of the last's. Raises UserError: nothing there, a file cut short or newer, another architecture.
    """
    return load_member(path, model=model, best=best)[0]
