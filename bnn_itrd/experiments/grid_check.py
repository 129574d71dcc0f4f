"""A check of all trainings of a sweep before the first one begins: networks, teachers and distillers must fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.run import MemberConfig, RunConfig
from bnn_itrd.config.trees import differences, to_dict
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers.factory import make_distillers
from bnn_itrd.distillers.setting import Setting, Sizes
from bnn_itrd.errors import FieldError, UserError
from bnn_itrd.experiments.grid import Point
from bnn_itrd.runs.member import check_from_teacher
from bnn_itrd.runs.sizes import output_sizes, sizes_of_definition
from bnn_itrd.runs.teachers import load_given_teacher
from bnn_itrd.training.step.images import check_augmentation
from bnn_itrd.words import counted

__all__ = ["check_points"]


def check_points(points: Sequence[Point], *, trust: bool = False) -> dict[DataConfig, ImageData]:
    """Checks all points (trainings) of a sweep and returns the data sets that they use.

    Each network and distiller is built once on the meta device, where tensors have no memory. trust: True: a user's
    code may be imported though only the folder of a given teacher names it. Raises UserError, with the point's name, if
    its training would fail.
    """
    check = _Check(trust)
    for point in points:
        try:
            check.point(point)
        except UserError as error:
            raise UserError(f"{point.name}: {error}") from error
    return check.data


def _given_key(config: RunConfig) -> tuple[Any, ...]:
    """Returns the fields that tell which given teacher a configuration uses, as the key of a dict."""
    return (config.teacher, config.teacher_weights, config.teacher_normalization, config.data)


class _Check:
    """The check of a sweep's points (its trainings), one after the other; it keeps what several points share.

    data: loaded data sets; sizes: sizes of networks' outputs; distillers: built distillers; teachers: the settings of
    the teachers to train, by name; given: given teachers, on the meta device.
    """

    def __init__(self, trust: bool) -> None:
        self.trust = trust
        self.data: dict[DataConfig, ImageData] = {}
        self.sizes: dict[tuple[Any, ...], Sizes] = {}
        self.distillers: dict[tuple[Any, ...], dict[str, nn.Module]] = {}
        self.teachers: dict[str, MemberConfig] = {}
        self.given: dict[tuple[Any, ...], nn.Module] = {}

    def point(self, point: Point) -> None:
        """Checks one training of a sweep: loads its data, builds its networks. Raises UserError if it would fail."""
        config, member = point.config, point.member
        if config.fabric.devices > 1 or config.fabric.num_nodes > 1:
            raise UserError("a sweep runs in one process: leave fabric.devices and fabric.num_nodes at 1")
        if config.data not in self.data:
            self.data[config.data] = load_data(config.data)
            self.data[config.data].check_crops()
        self._fits(member, "train")
        student = self._sizes(member)
        if not member.needs_teacher:
            return
        teacher = self._teacher(point)
        data = self.data[config.data]
        given = None if config.teacher is None else self.given[_given_key(config)]
        check_from_teacher(member, point.teacher_member if given is None else given, data)
        key = (student, teacher, str(member.distill), config.data)
        if key not in self.distillers:
            try:
                with torch.device("meta"):
                    made = make_distillers(member.distill, Setting(student, teacher, data.train.labels))
            except FieldError as error:
                raise error.inside(f"students.{point.student}") from error
            self.distillers[key] = dict(made.items())
        check_augmentation(
            member.train, shape=data.input_shape, labels=data.train.labels, distillers=self.distillers[key]
        )

    def _fits(self, member: MemberConfig, field: str) -> None:
        """Raises UserError if augmentation or batch size do not suit the data; field: their group in messages."""
        data = self.data[member.data]
        check_augmentation(member.train, shape=data.input_shape, labels=data.train.labels, field=field)
        size, images = member.train.batch_size, len(data.train)
        if size > images:
            raise UserError(
                f"{field}.batch_size {size} is larger than the {counted(images, 'training image')}: give a smaller one"
            )

    def _sizes(self, member: MemberConfig) -> Sizes:
        """Returns the sizes of a network's logits, representation and maps, found by building it without memory.

        For two-stage training the networks of both stages are built.
        """
        key = (member.network, member.scheme, member.data)
        if key not in self.sizes:
            data, scheme = self.data[member.data], member.scheme
            first = [] if scheme is None or not scheme.first_stage_epochs else [scheme.of_first_stage()]
            for each in [*first, scheme]:
                self.sizes[key] = sizes_of_definition(member.network, each, data)
        return self.sizes[key]

    def _teacher(self, point: Point) -> Sizes:
        """Returns the sizes of logits, representation and maps of a training's teacher, also before that is trained."""
        config = point.config
        if config.teacher is not None:
            key = _given_key(config)
            if key not in self.sizes:
                data = self.data[config.data]
                trust = self.trust or point.named
                model = load_given_teacher(config, data, trust=trust).model
                self.sizes[key] = output_sizes(model, data)
                self.given[key] = model.to("meta")
            return self.sizes[key]
        member = point.teacher_member
        self._fits(member, "teacher_train")
        if lines := differences(to_dict(self.teachers.setdefault(point.teacher, member)), to_dict(member)):
            raise UserError(
                f"two different teachers would be called {point.teacher}; they differ in {'; '.join(lines)}"
            )
        return self._sizes(member)
