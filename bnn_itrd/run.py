"""The whole road: data -> teacher -> binary students -> ONNX -> validation -> one comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from bnn_itrd.config import MemberConfig, RunConfig, member_config, to_dict
from bnn_itrd.data import ImageData, load_data
from bnn_itrd.distillers import Setting, make_distillers, measure
from bnn_itrd.environment import environment
from bnn_itrd.errors import UserError
from bnn_itrd.members import Member, data_identity, load_teacher, train_member, write_json, write_yaml
from bnn_itrd.networks import build
from bnn_itrd.training import make_fabric, matching_state

__all__ = ["run"]


def _check_folder(config: RunConfig, data: ImageData, out: Path) -> None:
    """Refuses a folder that another run began, before anything in it is touched."""
    for name in ("teacher", *config.students):
        last = out / name / "last.pt"
        if not last.exists():
            continue
        given = {**to_dict(member_config(config, name)), **data_identity(data)}
        matching_state(last, given, later=("teacher_sha256",))  # known only once there is a teacher


def _check_members(config: RunConfig, data: ImageData, given: Member | None, only: str | None) -> None:
    """Builds every network and distiller once, without memory: what does not fit is told before hours of training."""
    for name in [only] if only is not None else ["teacher", *config.students]:
        member = member_config(config, name)
        with torch.device("meta"):
            model = _build(member, data)
            if not member.distill.needs_teacher:
                continue
            teacher = _build(member_config(config, "teacher"), data) if given is None else given.model
        setting = Setting(measure(model, data.input_shape), measure(teacher, data.input_shape), data.train.labels)
        with torch.device("meta"):
            try:
                make_distillers(member.distill, setting)
            except UserError as error:
                raise UserError(f"students.{name}: {error}") from error


def _build(member: MemberConfig, data: ImageData) -> nn.Module:
    return build(member.network, member.scheme, num_classes=len(data.classes), input_shape=data.input_shape)


def run(config: RunConfig, out: Path, *, recipe: str = "", only: str | None = None) -> dict[str, Any] | None:
    """Trains what is not trained yet, exports, validates, compares; returns the comparison (main process only).

    `only`: train this one member ('teacher' or a student) and stop there. The same call continues a run that was
    interrupted. Raises UserError on anything the user can mend.
    """
    data = load_data(config.data)
    given = None if config.teacher is None else load_teacher(config.teacher, config.teacher_weights, data)
    _check_members(config, data, given, only)
    _check_folder(config, data, out)
    precisions = {config.teacher_train.precision, config.train.precision}
    fabric = make_fabric(config.fabric, precision=config.train.precision)
    if fabric.is_global_zero:
        write_yaml(out / "config.yaml", {"recipe": recipe, **to_dict(config)})
    fabric.barrier()
    teacher_fabric = fabric
    if len(precisions) > 1:
        if fabric.world_size > 1:
            raise UserError("with several processes, teacher_train.precision and train.precision must be the same")
        teacher_fabric = make_fabric(config.fabric, precision=config.teacher_train.precision)
    teacher = _teacher(config, data, teacher_fabric, out, only) if given is None else given
    members = [teacher] if teacher is not None else []
    for name in config.students if only is None else [only]:
        if name == "teacher":
            continue
        member = member_config(config, name)
        model = None if teacher is None else teacher.model
        members.append(train_member(member, data, model, fabric=fabric, out=out / name))
    if not fabric.is_global_zero:
        return None
    return _report(members, data, config, out, recipe, fabric, whole=only is None)


def _teacher(config: RunConfig, data: ImageData, fabric: Fabric, out: Path, only: str | None) -> Member | None:
    if only is None or only == "teacher":
        return train_member(member_config(config, "teacher"), data, None, fabric=fabric, out=out / "teacher")
    if (out / "teacher" / "last.pt").exists():
        return load_teacher(str(out / "teacher"), None, data)
    return None


def _report(
    members: list[Member],
    data: ImageData,
    config: RunConfig,
    out: Path,
    recipe: str,
    fabric: Fabric,
    *,
    whole: bool,
) -> dict[str, Any]:
    from bnn_itrd.comparison import compare
    from bnn_itrd.report import plot_curves, write_report

    files = {}
    for m in members:
        folder = out / m.name
        folder.mkdir(parents=True, exist_ok=True)
        files[m.name] = folder / ("teacher.onnx" if m.method == "teacher" else "student.onnx")
    comparison = compare(
        members,
        data,
        files=files,
        recipe=recipe,
        environment=environment(fabric.device),
        config=to_dict(config),
    )
    for model in comparison["models"]:
        # Where it was trained, which need not be where it was compared.
        record = out / model["name"] / "environment.json"
        model["trained_on"] = json.loads(record.read_text()) if record.is_file() else None
    reference = [m for m in comparison["models"] if m["method"] == "teacher"]
    for model in comparison["models"]:
        if model["method"] == "teacher" and not (out / model["name"] / "last.pt").exists():
            continue
        own = {**comparison, "models": [*(r for r in reference if r is not model), model], "differences": []}
        write_json(out / model["name"] / "comparison.json", own)
        plot_curves(own, out / model["name"] / "curves.png")
    if whole:
        write_json(out / "comparison.json", comparison)
        plot_curves(comparison, out / "curves.png")
        write_report(comparison, out / "report.html")
    return comparison
