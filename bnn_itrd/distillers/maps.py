"""Distillers of the maps of stages."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from bnn_itrd.config.distillers import (
    ABConfig,
    ATConfig,
    FitNetConfig,
    FSPConfig,
    FTConfig,
    ICKDConfig,
    NSTConfig,
    ReviewKDConfig,
    SPConfig,
    VIDConfig,
)
from bnn_itrd.distillers.base import Distiller, Setting, pick, stages_of
from bnn_itrd.losses import AB, AT, FSP, FT, ICKD, VID, FitNet, ReviewKD, VIDLogits, nst_loss, sp_loss
from bnn_itrd.models import Outputs

__all__ = [
    "ABDistiller",
    "ATDistiller",
    "FSPDistiller",
    "FTDistiller",
    "FitNetDistiller",
    "ICKDDistiller",
    "NSTDistiller",
    "ReviewKDDistiller",
    "SPDistiller",
    "VIDDistiller",
]


class _OneStage(Distiller):
    """A weighted loss of one stage's two maps."""

    loss: object
    stage: int
    weight: float

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        assert callable(self.loss)
        result: Tensor = self.weight * self.loss(student.stages[self.stage], teacher.stages[self.stage])
        return result


class FitNetDistiller(_OneStage):
    """Weighted `FitNet`, beside the other terms from the beginning (the paper has a phase of its own for it)."""

    def __init__(self, config: FitNetConfig, setting: Setting) -> None:
        super().__init__()
        self.stage, student, teacher = pick("fitnet", setting, config.stage)
        self.loss, self.weight = FitNet(student, teacher), config.weight


class SPDistiller(_OneStage):
    """Weighted `sp_loss`."""

    def __init__(self, config: SPConfig, setting: Setting) -> None:
        super().__init__()
        self.stage, _, _ = pick("sp", setting, config.stage)
        self.loss, self.weight = sp_loss, config.weight


class ICKDDistiller(_OneStage):
    """Weighted `ICKD`."""

    def __init__(self, config: ICKDConfig, setting: Setting) -> None:
        super().__init__()
        self.stage, student, teacher = pick("ickd", setting, config.stage)
        self.loss, self.weight = ICKD(student, teacher), config.weight


class FTDistiller(_OneStage):
    """`FT`: the paraphraser in a phase of its own, then the weighted difference of factors."""

    def __init__(self, config: FTConfig, setting: Setting) -> None:
        super().__init__()
        self.stage, student, teacher = pick("ft", setting, config.stage)
        self.factors = FT(student, teacher, rate=config.rate)
        self.loss, self.weight = self.factors, config.weight
        self.preparation_epochs = config.preparation_epochs

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return self.factors.paraphraser_loss(teacher.stages[self.stage])

    def prepared(self) -> None:
        self.factors.paraphraser.requires_grad_(False)


class _EachStage(Distiller):
    """The weighted sum of a loss over the stages."""

    losses: nn.ModuleList
    weight: float

    def _one(self, i: int, student: Tensor, teacher: Tensor) -> Tensor:
        result: Tensor = self.losses[i](student, teacher)
        return result

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        pairs = enumerate(zip(student.stages, teacher.stages, strict=True))
        return self.weight * torch.stack([self._one(i, s, t) for i, (s, t) in pairs]).sum()


class ATDistiller(_EachStage):
    """Weighted sum of `AT`."""

    def __init__(self, config: ATConfig, setting: Setting) -> None:
        super().__init__()
        student, _ = stages_of("at", setting)
        self.losses = nn.ModuleList(AT(p=config.p) for _ in student)
        self.weight = config.weight


class NSTDistiller(_EachStage):
    """Weighted sum of `nst_loss`."""

    def __init__(self, config: NSTConfig, setting: Setting) -> None:
        super().__init__()
        stages_of("nst", setting)
        self.weight = config.weight

    def _one(self, i: int, student: Tensor, teacher: Tensor) -> Tensor:
        return nst_loss(student, teacher)


class VIDDistiller(_EachStage):
    """Weighted sum of `VID` over the stages, or `VIDLogits`."""

    def __init__(self, config: VIDConfig, setting: Setting) -> None:
        super().__init__()
        self.weight, self.logits = config.weight, None
        if config.form == "logits":
            dims = setting.student.representation, setting.teacher.logits
            self.logits = VIDLogits(*dims, reduction=config.reduction)
            return
        student, teacher = stages_of("vid", setting)
        self.losses = nn.ModuleList(
            VID(s, t, batch_norm=config.batch_norm, reduction=config.reduction)
            for s, t in zip(student, teacher, strict=True)
        )

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        if self.logits is None:
            return super().forward(student, teacher, labels, indices)
        result: Tensor = self.weight * self.logits(student.representation, teacher.logits)
        return result


class _AllStages(Distiller):
    """A weighted loss of all stages at once, in the training or in a phase before it."""

    loss: nn.Module
    weight: float
    prepares_student = True

    def prepare(self, student: Outputs | None, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        assert student is not None
        result: Tensor = self.weight * self.loss(student.stages, teacher.stages)
        return result

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        return self.prepare(student, teacher, labels, indices)

    def prepared(self) -> None:
        if self.only_prepares:
            self.loss.requires_grad_(False)


class FSPDistiller(_AllStages):
    """Weighted `FSP`."""

    def __init__(self, config: FSPConfig, setting: Setting) -> None:
        super().__init__()
        self.loss, self.weight = FSP(*stages_of("fsp", setting, least=2)), config.weight
        self.preparation_epochs = config.preparation_epochs
        self.only_prepares = config.only_prepares


class ABDistiller(_AllStages):
    """`AB`, in a phase of its own. Its maps are those of the stages, whose last operation may be an activation."""

    only_prepares = True

    def __init__(self, config: ABConfig, setting: Setting) -> None:
        super().__init__()
        self.loss, self.weight = AB(*stages_of("ab", setting), margin=config.margin), config.weight
        self.preparation_epochs = config.preparation_epochs


class ReviewKDDistiller(Distiller):
    """Weighted `ReviewKD`; the representation, as a map of one pixel, is the last stage."""

    def __init__(self, config: ReviewKDConfig, setting: Setting) -> None:
        super().__init__()
        student, teacher = stages_of("reviewkd", setting)
        ends = (setting.student.representation, 1, 1), (setting.teacher.representation, 1, 1)
        self.loss, self.weight = ReviewKD([*student, ends[0]], [*teacher, ends[1]]), config.weight

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor) -> Tensor:
        pairs = ([*o.stages, rearrange(o.representation, "n d -> n d 1 1")] for o in (student, teacher))
        result: Tensor = self.weight * self.loss(*pairs)
        return result
