"""FT (factor transfer), a distillation method that compares short codes of one stage's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfOneStage

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["FTConfig"]


@dataclass(frozen=True, kw_only=True)
class FTConfig(OfOneStage):
    """Compares codes of a stage's output, called factors, which two small networks compute (FT; Kim et al. 2018).

    The paraphraser, an autoencoder, codes the teacher's output and is trained first. The translator codes the
    student's.

    Args:
        stage: number of the stage, from 0, or from the end with -1
        rate: number of channels of a factor, as a share of the channels of the teacher's output
        preparation_epochs: number of epochs before the training, in which the paraphraser is trained
        preparation_lr: learning rate in these epochs; null means the training's
    """

    facts = Facts(
        matches="factors of one stage's map",
        owns="paraphraser (of the teacher), translator (of the student)",
        reduction="mean over elements",
        source="Kim 2018",
    )

    weight: float = 200.0
    stage: int = -1
    rate: float = 0.5
    preparation_epochs: int = 30
    preparation_lr: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(0 < self.rate <= 1, "rate", "in (0, 1]")
        rule = ">= 1, since the paraphraser, which codes the teacher's maps, is trained in them"
        self._require(self.preparation_epochs >= 1, "preparation_epochs", rule)
        self._require_preparation_lr(self.preparation_lr)

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.ft import FT

        return FT(*self.shapes(setting), rate=self.rate)

    @property
    def kept_as(self) -> tuple[str, ...]:
        return ("factors", "loss")

    def prepare(self, loss: Any, student: Outputs | None, teacher: Outputs) -> Tensor:
        result: Tensor = loss.paraphraser_loss(self.map_of(teacher))
        return result

    def prepared(self, loss: Any) -> None:
        loss.paraphraser.requires_grad_(False)
