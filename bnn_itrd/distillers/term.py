"""`Term`, the distillation loss that is made from a `Method`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn_itrd.distillers.base import Distiller, gather
from bnn_itrd.distillers.method import Method
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.models import Outputs

__all__ = ["Term"]


def _of_all_processes(outputs: Outputs) -> Outputs:
    return Outputs(outputs.logits, gather(outputs.representation), outputs.stages)


class Term(Distiller):
    """Computes a method's loss times its weight; (student outputs, teacher outputs, labels (n,), indices (n,)) -> ().

    `method` has the options and the loss; `setting` has the sizes of the networks' outputs, from which its layers get
    their shapes. Raises UserError or ValueError if the method cannot compare these two networks.
    """

    def __init__(self, method: Method, setting: Setting) -> None:
        super().__init__()
        method.check(setting)
        self.method, self.weight, self.gathers = method, method.weight, method.gathers
        self.preparation_epochs = getattr(method, "preparation_epochs", 0)
        self.preparation_lr = getattr(method, "preparation_lr", None)
        self.prepares_student, self.only_prepares = method.prepares_student, method.only_prepares
        self.reads_labels, self.replicated = method.reads_labels, method.replicated
        self.watches = method.watches
        self.called, *_ = method.kept_as
        loss = method.loss(setting)
        for name in method.kept_as:
            setattr(self, name, loss)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        if self.gathers:
            student, teacher, indices = _of_all_processes(student), _of_all_processes(teacher), gather(indices)
        value = self.method.term(getattr(self, self.called), student, teacher, labels, indices)
        total = torch.stack([*value]).sum() if isinstance(value, Sequence) else value
        result: Tensor = self.weight * total
        return result

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return self.method.prepare(getattr(self, self.called), student, teacher)

    def prepared(self) -> None:
        self.method.prepared(getattr(self, self.called))

    def watch(self, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        return self.method.watch(getattr(self, self.called), student, teacher)
