"""The Python interface: functions that train and load networks as the commands do, also your own."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from bnn_itrd.config.addresses import address_of, is_address
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.datasets import as_image_data
from bnn_itrd.data.normalisation import seen_as_trained
from bnn_itrd.data.splits import ImageData
from bnn_itrd.deploy.targets import write_target
from bnn_itrd.distillers.representation.itrd import ITRDConfig
from bnn_itrd.environment import environment
from bnn_itrd.errors import UserError
from bnn_itrd.files import write_json, write_yaml
from bnn_itrd.models import evaluation_mode, find_head, summary
from bnn_itrd.quant import BinaryConv2d, BinaryLinear
from bnn_itrd.runs.identity import data_identity, layers_hash, teacher_hash
from bnn_itrd.runs.load import load_member
from bnn_itrd.runs.lock import exclusive_folder
from bnn_itrd.runs.member import Member
from bnn_itrd.runs.networks import definition_of
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import Fitted, fit
from bnn_itrd.training.lost_processes import ending_together
from bnn_itrd.training.precision import choose_precision
from bnn_itrd.training.progress import tell_beginning

__all__ = ["Distilled", "distill", "load"]


@dataclass(frozen=True)
class Distilled(Fitted):
    """The result of `distill`: the trained network, its evaluation, the data of its training, and the run's folder."""

    data: ImageData
    folder: Path

    def to_onnx(self, path: str | Path | None = None, *, uint8: bool = False) -> Path:
        """Writes the network as an ONNX file, which `bnn-itrd predict` can run, and returns the file's path.

        The file contains the names of the classes, and the mean and std of the data.
        path: by default student.onnx in the run's folder. uint8: True: the file takes uint8 images (n, c, h, w) and
        normalises them itself; False: it takes float32 images that are already normalised.
        Raises ExportError if the network cannot be exported, FileNotFoundError if the folder does not exist. The
        docstring of `load` has an example.
        """
        file = self.folder / "student.onnx" if path is None else Path(path)
        checkpoint = self.folder / "last.pt"
        return write_target(
            "onnx", self.model, self.data, file, member=self.folder.name, checkpoint=checkpoint, uint8=uint8
        )


def distill(
    student: nn.Module,
    teacher: nn.Module | None,
    data: Any = "digits",
    *,
    train: TrainConfig | None = None,
    distill: DistillConfig | None = None,
    distillers: Mapping[str, Any] | None = None,
    out: str | Path = "runs/distill",
    fabric: FabricConfig | None = None,
    log: LogConfig | None = None,
    report: bool = False,
) -> Distilled:
    """Trains a student on labels and on a teacher's outputs, as the commands do; the student is changed in place.

    student, teacher: classifiers, images (n, c, h, w) -> logits (n, classes). Without a teacher (None) only the labels
    are learned. The teacher is put in eval mode; if `load` or `distill` returned it, it gets images with the
    normalisation of its own training. data: a data set's name, the address of a function of yours that makes one
    (package.module:make), a `DataConfig`, an `ImageData`, a torch Dataset or DataLoader of (image, label), or a pair of
    these (train, test). distill: the built-in methods; None: ITRD with the paper's weights, or no built-in method if
    `distillers` are given. distillers: your own, by name: each a `Distiller`, its class, a factory, a function
    (student, teacher, labels) -> loss, or an `OwnConfig`. out: the run's folder; the same call continues a run in it.
    report: True: also export and compare the networks, and write comparison.json, curves.png and report.html.
    Warns if most of the student is frozen (``requires_grad`` False), or if a BatchNorm is in eval mode in a student in
    training mode (it stays so). Raises UserError if the configuration is wrong, the output is not (n, classes), no
    parameter can be trained, student and teacher are the same object, another run or process uses `out`, or the loss is
    not finite; `bnn_itrd.errors.Unfinished` if ``train.max_seconds`` have passed: the same call then continues.

    >>> network, train = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), TrainConfig(epochs=1)
    >>> run = distill(network, None, "digits", train=train, out=folder, log=LogConfig(False, False))  # doctest: +SKIP
    """
    began = time.monotonic()
    _check_kinds(train=train, distill=distill, distillers=distillers)
    if student is teacher:
        raise UserError("student and teacher are the same object: pass a copy as the teacher, copy.deepcopy(student)")
    data, source = as_image_data(data)
    data.check_crops()
    train = train or TrainConfig()
    if distill is None:
        distill = DistillConfig() if teacher is None or distillers else DistillConfig(itrd=ITRDConfig())
    distill = distill.with_own(distillers or {})
    _check_student(student, data)
    folder = Path(out)
    train, launched = _launch(train, fabric or FabricConfig(), folder)
    identity = _identity(folder.name, student, teacher, data, source, train, distill)
    log = log or LogConfig()
    if launched.is_global_zero:
        _print_beginning(student, data, shown=log.progress)
    torch.manual_seed(train.seed)
    with exclusive_folder(folder):
        with ending_together(launched), seen_as_trained(teacher, data):
            fitted = fit(
                student, teacher, data, train=train, distill=distill, fabric=launched, log=log,
                out=folder, identity=identity, title=folder.name, begin=lambda: _begin(folder, identity, launched),
            )  # fmt: skip
        if report and launched.is_global_zero:
            next_commands = _report(fitted, teacher, data, folder, identity, launched.device, began)
            if log.progress:
                print(next_commands)
    return Distilled(fitted.model, fitted.history, fitted.final, data, folder)


def _identity(
    name: str,
    student: nn.Module,
    teacher: nn.Module | None,
    data: ImageData,
    source: dict[str, Any] | None,
    train: TrainConfig,
    distill: DistillConfig,
) -> dict[str, Any]:
    """Returns the settings that are saved with a run: a later call continues it only if its settings are the same."""
    identity = {
        "name": name,
        "data": source or {"name": data.name, "resize": data.resize},
        **_network_identity(student, data),
        "train": to_dict(train),
        "distill": to_dict(distill),
        **data_identity(data),
    }
    if distill.needs_teacher and teacher is not None:
        identity["teacher_sha256"] = teacher_hash(teacher, data)
    return identity


def _print_beginning(student: nn.Module, data: ImageData, *, shown: bool) -> None:
    """Prints the data and the network's size; the size is left out if the network cannot be copied to count it."""
    cost = None
    if shown:
        with contextlib.suppress(Exception):
            cost = summary(student, data.input_shape)
    tell_beginning(data, type(student).__name__, cost, shown=shown)


def _launch(train: TrainConfig, fabric: FabricConfig, folder: Path) -> tuple[TrainConfig, Fabric]:
    """Returns the training settings with precision 'auto' replaced by a chosen one, and the Fabric that runs them."""
    if train.precision != "auto":
        return train, make_fabric(fabric, precision=train.precision)
    choice = choose_precision(fabric, [folder])
    launched = make_fabric(fabric, precision=choice.precision)
    launched.print(f"precision: {choice.precision}, {choice.why}")
    return dataclasses.replace(train, precision=choice.precision), launched


def _check_kinds(*, train: object, distill: object, distillers: object) -> None:
    """Raises UserError if an argument of `distill` has the wrong type, such as a loss in place of a dict of losses."""
    for name, value, kind in (("train", train, TrainConfig), ("distill", distill, DistillConfig)):
        if value is not None and not isinstance(value, kind):
            hint = "; a loss of your own goes into distillers={'name': loss}" if name == "distill" else ""
            raise UserError(f"{name} must be a {kind.__name__}, got {type(value).__name__}{hint}")
    if distillers is not None and not isinstance(distillers, Mapping):
        raise UserError(f"distillers must map names to distillers, {{'name': loss}}, got {type(distillers).__name__}")


def _begin(folder: Path, identity: dict[str, Any], fabric: Fabric) -> None:
    """Writes the settings and the environment into the run's folder, when the training begins."""
    write_yaml(folder / "config.yaml", identity)
    write_json(folder / "environment.json", environment(fabric.device))


def _network_identity(student: nn.Module, data: ImageData) -> dict[str, Any]:
    """Returns the entries of a run's settings that identify its network: custom_network, layers_sha256, made_by.

    made_by says how to build the network again: this package's configuration if it built the network, otherwise the
    address of the network's class; None if the class cannot be imported.
    """
    address = address_of(type(student))
    made_by: dict[str, Any] | None = {"address": address} if _can_be_imported(type(student), address) else None
    if address.startswith("bnn_itrd."):
        known = definition_of(student, num_classes=len(data.classes), input_shape=data.input_shape)
        made_by = None
        if known is not None:
            network, scheme = known
            made_by = {"network": to_dict(network), "scheme": None if scheme is None else to_dict(scheme)}
    return {
        "custom_network": type(student).__name__,
        # A hash of every layer's sizes, scheme and padding: a different network of the same class must not match.
        "layers_sha256": layers_hash(student),
        "made_by": made_by,
    }


def _can_be_imported(kind: type, address: str) -> bool:
    """Returns whether importing a class by its address gives the network's architecture.

    It does not for a class that a script or a function defines, since those cannot be imported, nor for a class of
    torch (Sequential, GraphModule), since it can hold any network.
    """
    module, _, name = address.partition(":")
    if module.partition(".")[0] in ("__main__", "torch") or not is_address(address):
        return False
    return getattr(importlib.import_module(module), name, None) is kind


def _report(
    fitted: Fitted,
    teacher: nn.Module | None,
    data: ImageData,
    folder: Path,
    identity: dict[str, Any],
    device: torch.device,
    began: float,
) -> str:
    """Exports and compares the student and its teacher; returns a text with the commands to try next."""
    from bnn_itrd.runs.finished.next_steps import next_steps
    from bnn_itrd.runs.report import report_run

    made_by, checkpoint = identity["made_by"] or {}, folder / "last.pt"
    network = made_by["network"]["name"] if "network" in made_by else identity["custom_network"]
    binary = any(isinstance(m, (BinaryConv2d, BinaryLinear)) for m in fitted.model.modules())
    alone = teacher is None and not binary
    members = [] if teacher is None else [Member("teacher", teacher.eval(), "teacher", type(teacher).__name__)]
    method = "teacher" if alone else folder.name
    members.append(Member(folder.name, fitted.model, method, network, checkpoint, fitted))
    folders = {m.name: folder if m.name == folder.name else folder / m.name for m in members}
    reported = report_run(members, data, folders, recipe="", device=device, config=identity, out=folder, began=began)
    options = " --trust" if "address" in made_by else "" if made_by else " --model package.module:NAME"
    if "resize" in identity["data"]:  # the data was given as objects, so the run's files do not name it
        options += " --data package.module:NAME"
    return next_steps(reported, folders, folder, options=options)


@torch.no_grad()
def _check_student(student: nn.Module, data: ImageData) -> None:
    """Raises UserError unless the network returns logits (2, classes) for two images of zeros in eval mode."""
    device = next((p.device for p in student.parameters()), torch.device("cpu"))
    try:
        with evaluation_mode(student):
            logits = student(torch.zeros(2, *data.input_shape, device=device))
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        size = "x".join(map(str, data.input_shape))
        raise UserError(f"{type(student).__name__} cannot be used on images of {size}: {first}") from error
    try:
        find_head(student)
    except ValueError as error:
        raise UserError(str(error)) from error
    wanted = (2, len(data.classes))
    got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != wanted:
        raise UserError(
            f"{type(student).__name__} must return a logit for each class of {data.name}: for two images the shape "
            f"{wanted}, got {got}"
        )


def load(
    path: str | Path, *, model: nn.Module | str | None = None, best: bool = False, trust: bool = False
) -> nn.Module:
    """Returns the trained network of a run folder or checkpoint, in eval mode on the CPU.

    model: needed if the run trained a network of your own: an instance of it, into which the weights are loaded, or
    the address of a function that makes one (``mypkg.nets:make``). best: True: the weights of the epoch with the best
    top-1, False: those of the last epoch. trust: True: import code of yours that only the run's folder names.
    Raises UserError if there is no run, its checkpoint is damaged or of a newer version of this package, its weights
    do not fit the network, or it needs code that is not trusted.

    >>> import tempfile
    >>> network, one_epoch = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), TrainConfig(epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = distill(network, None, train=one_epoch, out=folder, log=LogConfig(tensorboard=False, progress=False))
    ...     again = load(folder, model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    ...     file = run.to_onnx()
    >>> torch.equal(again[1].weight, run.model[1].weight), len(run.history), run.final.logits.shape[1], file.name
    (True, 1, 10, 'student.onnx')
    """
    return load_member(path, model=model, best=best, trust=trust)[0]
