"""The Python interface: the commands' work as functions, with your own networks, losses and data."""

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
    """A trained network, the data it was trained on, and its run's folder; see `distill`."""

    data: ImageData
    folder: Path

    def to_onnx(self, path: str | Path | None = None, *, uint8: bool = False) -> Path:
        """Writes the network as an ONNX file that `bnn-itrd predict` takes; returns its path.

        The file contains the class names and the normalisation of the data. path: student.onnx in the run's folder by
        default. uint8: the file takes uint8 images (n, c, h, w) and normalises them itself; else float32, normalised.
        Raises ExportError if the network cannot be exported, FileNotFoundError if the folder does not exist. `load` has
        an example.
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
    """Trains a student on labels and a teacher, exactly as the commands do; the student is changed in place.

    student, teacher: classifiers, (n, c, h, w) -> (n, classes). A teacher (None: labels alone) is put in eval mode; one
    of `load` or `distill` gets images normalised as in its own training. data: a data set's name, the address of yours
    (package.module:make), a `DataConfig`, `ImageData`, a torch Dataset or DataLoader of (image, label), or a pair of
    these (train, test). distill: by default ITRD with the paper's weights, or labels alone if there are `distillers`:
    your own by name, each a `Distiller`, its class, a factory, a function (student, teacher, labels) -> loss, or an
    `OwnConfig`. out: the run's folder, where the same call continues. report: also export and compare the networks, and
    write comparison.json, curves.png and report.html, as ``bnn-itrd run`` does.
    Gives a UserWarning if most of the student is frozen (``requires_grad`` False), or a BatchNorm is in evaluation mode
    in a student in training mode: it stays so. Raises UserError: bad configuration; a student whose output is not
    (n, classes), that is its own teacher, or has no parameter to train; another run or process in `out`; a loss that is
    not finite. Raises `bnn_itrd.errors.Unfinished` if ``train.max_seconds`` are over: the same call continues.

    >>> network, train = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), TrainConfig(epochs=1)
    >>> run = distill(network, None, "digits", train=train, out=folder, log=LogConfig(False, False))  # doctest: +SKIP
    """
    began = time.monotonic()
    _check_kinds(train=train, distill=distill, distillers=distillers)
    if student is teacher:
        raise UserError("student and teacher are the same network: give a copy, copy.deepcopy(student), as the teacher")
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
    """Returns the settings that a saved run must share with this call to be continued."""
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
    """Prints the data and the network's size; no size if the network cannot be copied, which counting needs."""
    cost = None
    if shown:
        with contextlib.suppress(Exception):
            cost = summary(student, data.input_shape)
    tell_beginning(data, type(student).__name__, cost, shown=shown)


def _launch(train: TrainConfig, fabric: FabricConfig, folder: Path) -> tuple[TrainConfig, Fabric]:
    """Returns the training with 'auto' replaced by a precision, and the Fabric that runs it."""
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
    write_yaml(folder / "config.yaml", identity)
    write_json(folder / "environment.json", environment(fabric.device))


def _network_identity(student: nn.Module, data: ImageData) -> dict[str, Any]:
    """Returns which network a run belongs to, and how to build it again if that is known.

    made_by: the network's definition if this package built it; else the address of its class if that can be imported.
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
    """Returns whether a class can be imported by its name, and identifies the network.

    A class defined in a script or a function cannot be imported; torch's own (Sequential, GraphModule) do not identify
    the network.
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
    """Exports and compares the student and its teacher; see `distill`. Returns the commands to go on with."""
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
    """Raises UserError unless the network returns (2, classes) for two images of zeros in evaluation mode."""
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
            f"{type(student).__name__} must give a logit for each class of {data.name}: {wanted} of two images, "
            f"got {got}"
        )


def load(
    path: str | Path, *, model: nn.Module | str | None = None, best: bool = False, trust: bool = False
) -> nn.Module:
    """Returns the trained network of a run folder or checkpoint, in eval mode on the CPU.

    model: your own network, whose weights are loaded in place, or the address of a function that makes it
    (``mypkg.nets:make``), if the run trained one. best: load the best epoch's weights instead of the last one's.
    trust: allow importing code that only the run's folder names.
    Raises UserError: no run there, a file that is cut short or of a newer version, another architecture, code that is
    not trusted.

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
