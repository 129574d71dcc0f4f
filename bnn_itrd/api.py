"""The Python interface: what the command line does, with your own networks and data."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnn_itrd.config import (
    DataConfig,
    DistillConfig,
    FabricConfig,
    ITRDConfig,
    LogConfig,
    TrainConfig,
    to_dict,
)
from bnn_itrd.data import ImageData, load_data
from bnn_itrd.members import data_identity, load_member, weights_hash, write_json, write_yaml
from bnn_itrd.training import Fitted, fit, make_fabric

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
    Raises UserError: bad configuration, another run in `out`, a loss that is not finite.
    """
    from bnn_itrd.environment import environment

    if isinstance(data, str):
        data = DataConfig(name=data, crop_padding=1, flip=False) if data == "digits" else DataConfig(name=data)
    source: dict[str, Any] | None = None
    if isinstance(data, DataConfig):
        source, data = to_dict(data), load_data(data)
    train = TrainConfig() if train is None else train
    if distill is None:
        distill = DistillConfig(itrd=ITRDConfig()) if teacher is not None else DistillConfig()
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


def load(path: str | Path, *, model: nn.Module | None = None, best: bool = False) -> nn.Module:
    """The trained network of a run folder or checkpoint, in eval mode on the CPU.

    model: a network of your own to fill, where the run was made with one (`distill`). best: the best epoch's weights
    instead of the last's. Raises UserError: nothing there, a file cut short or newer, another architecture.
    """
    return load_member(path, model=model, best=best)[0]
