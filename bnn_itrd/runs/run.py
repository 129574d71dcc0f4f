"""The function behind `bnn-itrd run`: it trains a teacher and its students, exports, validates and compares them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from bnn_itrd.config.addresses import LIBRARIES, named_addresses
from bnn_itrd.config.run import MemberConfig, RunConfig, member_config
from bnn_itrd.config.train import TrainConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting, Sizes
from bnn_itrd.errors import FieldError, Unfinished, UserError
from bnn_itrd.files import write_json, write_yaml
from bnn_itrd.models import MODELS
from bnn_itrd.runs.identity import data_identity
from bnn_itrd.runs.lock import run_folder
from bnn_itrd.runs.member import FIRST_STAGE, Member, check_from_teacher, train_member
from bnn_itrd.runs.sizes import first_look, output_sizes, sizes_of_definition
from bnn_itrd.runs.teachers import load_given_teacher, load_teacher
from bnn_itrd.training.checkpoint import matching_state
from bnn_itrd.training.fabric import make_fabric, steps_in_epoch
from bnn_itrd.training.lost_processes import ending_together
from bnn_itrd.training.precision import settle_precision
from bnn_itrd.training.progress import tell_beginning
from bnn_itrd.training.step.images import check_augmentation
from bnn_itrd.training.threads import busy_note

__all__ = ["run_recipe"]


def _folders(config: RunConfig, out: Path) -> list[Path]:
    """Returns the folders of all trainings of a run: students with their first stages, and last the teacher."""
    students = [folder for name in config.students for folder in (out / name, out / name / FIRST_STAGE)]
    return [*students, out / "teacher"]


def _check_name(config: RunConfig, only: str | None) -> None:
    """Raises UserError if `only` is not the name of a network of the run; called before the run's folder is read."""
    if only is not None:
        member_config(config, only)


def _check_folder(config: RunConfig, data: ImageData, out: Path) -> None:
    """Raises UserError if the folder has checkpoints of other settings; called before anything in it is changed."""
    for name in ("teacher", *config.students):
        member = member_config(config, name)
        for stage, folder in ((member, out / name), (member.of_first_stage(), out / name / FIRST_STAGE)):
            if stage is not None and (folder / "last.pt").exists():
                given = {**to_dict(stage), **data_identity(data)}
                # The hashes of the teacher and of the first weights are left out: their files are read only later.
                matching_state(folder / "last.pt", given, later=("teacher_sha256", "weights_sha256"))


def _check_members(config: RunConfig, data: ImageData, only: str | None, teacher: Member | None) -> None:
    """Builds every network and distiller on the meta device, so that errors are raised before hours of training.

    only: check just this network; None: all of the run. teacher: a teacher that is already trained; None: the run
    trains its own. Raises UserError.
    """
    students = [member_config(config, name) for name in config.students if only in (None, name)]
    shape, labels = data.input_shape, data.train.labels
    for field, train in _trainings(config, only, teacher).items():
        check_augmentation(train, shape=shape, labels=labels, field=field)
    for member in students:
        check_from_teacher(member, member_config(config, "teacher") if teacher is None else teacher.model, data)
    learning = [member for member in students if member.distill.needs_teacher]
    teacher_sizes = None
    if learning or (teacher is None and only in (None, "teacher")):
        teacher_sizes = _sizes("teacher", member_config(config, "teacher") if teacher is None else teacher.model, data)
    if not students:
        return
    # All students have the same network and scheme and differ only in their distillers: checking one is enough.
    if (first := students[0].of_first_stage()) is not None:
        _sizes(first.name, first, data)
    sizes = _sizes(students[0].name, students[0], data)
    for member in students:
        try:
            member.distill.check_learns()
        except UserError as error:
            raise UserError(f"students.{member.name}: {error}") from error
    for member in learning:
        assert teacher_sizes is not None
        try:
            with torch.device("meta"):
                made = make_distillers(member.distill, Setting(sizes, teacher_sizes, labels))
            check_augmentation(member.train, shape=shape, labels=labels, distillers=dict(made.items()))
        except FieldError as error:
            raise error.inside(f"students.{member.name}") from error
        except UserError as error:
            raise UserError(f"students.{member.name}: {error}") from error


def _sizes(name: str, given: MemberConfig | nn.Module, data: ImageData) -> Sizes:
    """Returns the sizes of a network's logits, representation and maps.

    given: its configuration, or the network; name: the network's, for error messages.
    """
    try:
        if isinstance(given, nn.Module):
            return output_sizes(given, data)
        return sizes_of_definition(given.network, given.scheme, data)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def run_recipe(
    config: RunConfig,
    out: Path,
    *,
    recipe: str = "",
    only: str | None = None,
    trust: bool = False,
    report: bool = True,
) -> dict[str, Any] | None:
    """Trains, exports, validates and compares the networks of a run in the folder `out`; returns the comparison.

    The result is the content of comparison.json; None if `report` is False, and in all processes but the first. The
    same call continues an interrupted run; status.json says whether all training is done. recipe: the recipe's name.
    only: 'teacher' or a student's name: train and compare just that network. trust: True: import a user's code though
    only the folder of a given teacher names it. report: False: only train; a later call exports and compares.
    Raises UserError if the user can correct the error, Unfinished if ``train.max_seconds`` have passed.
    """
    began = time.monotonic()
    _check_name(config, only)
    data = load_data(config.data)
    data.check_crops()
    config, lines = settle_precision(config, teacher=[out / "teacher"], students=_folders(config, out))
    _check_folder(config, data, out)
    teacher = _given_teacher(config, data, out, only, trust)
    _check_members(config, data, only, teacher)
    trainings = _trainings(config, only, teacher)
    precisions = [train.precision for train in trainings.values()] or [config.train.precision]
    fabric = make_fabric(config.fabric, precision=precisions[-1])
    for line in dict.fromkeys(lines[field] for field in trainings if field in lines):
        fabric.print(f"precision: {line}")
    for field, train in trainings.items():
        steps_in_epoch(train, len(data.train), fabric.world_size, field=field)
    if precisions[0] != precisions[-1] and fabric.world_size > 1:
        raise UserError("with several processes, teacher_train.precision and train.precision must be the same")
    if fabric.is_global_zero:
        _print_beginning(config, data, only)
        busy = busy_note(torch.get_num_threads()) if fabric.device.type == "cpu" and config.log.progress else None
        if busy is not None:
            print(f"note: {busy}", file=sys.stderr)
    deadline = None if config.max_seconds is None else began + config.max_seconds
    with run_folder(out, only):
        with ending_together(fabric):
            members = _train(
                config, data, teacher, trainings, fabric, out=out, recipe=recipe, only=only, deadline=deadline
            )
        if not fabric.is_global_zero or not report:
            return None
        from bnn_itrd.runs.report import report_run

        return report_run(
            members,
            data,
            {m.name: out / m.name for m in members},
            recipe=recipe,
            device=fabric.device,
            config=to_dict(config),
            out=out if only is None else None,
            began=began,
            tell=fabric.print if config.log.progress else _silent,
        )


def _silent(line: str) -> None:
    """Does nothing; it takes the place of `print` if no progress is to be shown."""


def _print_beginning(config: RunConfig, data: ImageData, only: str | None) -> None:
    """Prints the data set and the size of the students' network, or of the teacher's if only that is trained."""
    name = only or next(iter(config.students), "teacher")
    member = member_config(config, name)
    shown, cost, remarks = config.log.progress, None, list[str]()
    if shown or member.network.name not in MODELS:  # only networks made binary by `binarize` have remarks
        cost, remarks = first_look(member.network, member.scheme, data)
    tell_beginning(data, member.network.name, cost, remarks, shown=shown)


def _train(
    config: RunConfig,
    data: ImageData,
    teacher: Member | None,
    trainings: dict[str, TrainConfig],
    fabric: Fabric,
    *,
    out: Path,
    recipe: str,
    only: str | None,
    deadline: float | None,
) -> list[Member]:
    """Trains the networks of a run, or the one called `only`; returns the networks to compare, the teacher first.

    teacher: a teacher that is already trained. It is trained here if `trainings` has the key 'teacher_train'. A teacher
    whose classes are not those of the data is not returned. deadline: a time of `time.monotonic`. Raises Unfinished if
    the next epoch would end after it.
    """
    precision = config.teacher_train.precision
    if fabric.is_global_zero:
        write_yaml(out / "config.yaml", {"recipe": recipe, **to_dict(config)})
    fabric.barrier()
    teacher_fabric = fabric
    if "teacher_train" in trainings and precision != fabric.strategy.precision.precision:
        teacher_fabric = make_fabric(config.fabric, precision=precision)
    status = out / "status.json" if only is None else out / only / "status.json"
    if fabric.is_global_zero:
        write_json(status, {"finished": False})
    try:
        if "teacher_train" in trainings:
            member, folder = member_config(config, "teacher"), out / "teacher"
            teacher = train_member(member, data, None, fabric=teacher_fabric, out=folder, deadline=deadline)
        members = [teacher] if teacher is not None and not teacher.other_task else []
        for name in config.students if only is None else [only]:
            if name == "teacher":
                continue
            member = member_config(config, name)
            members.append(train_member(member, data, teacher, fabric=fabric, out=out / name, deadline=deadline))
    except Unfinished as stopped:
        if fabric.is_global_zero:
            where = {"member": stopped.title, "epoch": stopped.epoch, "epochs": stopped.epochs}
            write_json(status, {"finished": False, **where})
        raise
    if fabric.is_global_zero:
        write_json(status, {"finished": True})
    return members


def _trainings(config: RunConfig, only: str | None, teacher: Member | None) -> dict[str, TrainConfig]:
    """Returns the settings of this call's trainings: 'teacher_train' -> the teacher's, 'train' -> the students'."""
    trainings = {}
    if teacher is None and only in (None, "teacher"):
        trainings["teacher_train"] = config.teacher_train
    if config.students and only != "teacher":
        trainings["train"] = config.train
    return trainings


def _given_teacher(config: RunConfig, data: ImageData, out: Path, only: str | None, trust: bool) -> Member | None:
    """Returns a teacher that is already trained, or None if there is none or none is needed.

    It is the one that the configuration names or, if a single student is trained, the one in the run's folder.
    """
    trusted = trust or named_addresses(to_dict(config))
    if config.teacher is not None and only == "teacher":
        raise UserError(f"teacher {config.teacher} is given, so none is trained: leave --teacher out or name a student")
    if config.teacher is not None:
        untrained = config.teacher_weights is None and config.teacher.partition(":")[0] in LIBRARIES
        if untrained and only is not None and not member_config(config, only).needs_teacher:
            return None  # this student is trained without a teacher
        students = config.students if only is None else {k: v for k, v in config.students.items() if k == only}
        other = not any(student.compares_logits for student in students.values())
        return load_given_teacher(config, data, other_classes=other, trust=trusted)
    if only not in (None, "teacher") and (out / "teacher" / "last.pt").exists():
        return load_teacher(str(out / "teacher"), None, data, trust=trusted)
    return None
