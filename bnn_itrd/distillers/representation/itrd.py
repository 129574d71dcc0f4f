"""ITRD, a distillation method: a correlation loss and a mutual-information loss on the representations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting, stages_of
from bnn_itrd.distillers.views import OfRepresentations

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["ITRDConfig"]


@dataclass(frozen=True, kw_only=True)
class ITRDConfig(OfRepresentations):
    """Adds a correlation and a mutual-information loss of the representations (ITRD; Miles et al. 2022, eq. 10).

    Args:
        alpha: exponent of the correlation loss; the paper has 1.01 for equal architectures and 1.5 for different ones
        beta_corr: weight of the correlation loss
        beta_mi: weight of the mutual-information loss
        gather: with several processes, whether statistics are over the global batch or each process's part of it
        corr_log: whether the correlation loss takes the log2 of its sum (eq. 6)
        off_diagonal: weight of the off-diagonal entries of the cross-correlation matrix in the sum of eq. 6
        decorrelation: weight of the off-diagonal entries of the student's own correlation matrix in the same sum
        log: whether the mutual-information loss takes the log2 of its terms (eq. 8 and 9)
        order: order of Rényi's entropy in the mutual-information loss (eq. 8); all but 2 need eigenvalues in each step
        degree: degree of the Gram matrices' polynomial kernel
        stages: how many stages before the last are compared too, each by the means of its channels and with a
            projection of its own; their losses are added
    """

    facts = Facts(
        matches="correlation and Rényi mutual information of representations",
        owns="linear embedding",
        reduction="log2 of a sum over features, information potentials of Gram matrices",
        source="Miles 2022",
        global_batch="{name} (`gather: true`)",
        own_part="{name} with `gather: false`",
        found={
            "alpha": "2 is best of 1.01 to 10 for ResNet-50 -> MobileNetV2, 1.01 to 4 within 0.3 points of it "
            "(arXiv v1, table 3)",
            "beta_corr": "1.5 to 2.5 within 0.5 points (arXiv v1, figure 3)",
            "beta_mi": "any value tried within 0.5 points (arXiv v1, figure 3)",
            "corr_log": "on is better: it reduces spurious variations within a batch (sec. 4.1)",
            "off_diagonal": "hurts the student significantly (sec. 4.1; no numbers, no formula)",
            "decorrelation": "hurts it in the same way (sec. 4.1; no numbers, no formula)",
            "log": "off is better (sec. 4.2; no numbers)",
            "order": "2 alone is used: others cost eigenvalues (sec. 4.2)",
            "degree": "1 alone is used (sec. 4.2)",
            "stages": "not in the paper",
        },
    )
    positive = ("order", "degree")

    alpha: float = 1.01
    beta_corr: float = 2.0
    beta_mi: float = 1.0
    gather: bool = True
    corr_log: bool = True
    off_diagonal: float = 0.0
    decorrelation: float = 0.0
    log: bool = False
    order: float = 2.0
    degree: int = 1
    stages: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.alpha > 0, "alpha", "> 0")

    def check(self, setting: Setting) -> None:
        if self.stages:
            stages_of(self.name, setting, least=self.stages + 1)

    def loss(self, setting: Setting) -> Any:
        last = self.loss_of(*self.dims(setting))
        if not self.stages:
            return last
        from torch import nn

        channels = [(s[0], t[0]) for s, t in zip(*stages_of(self.name, setting), strict=True)]
        return nn.ModuleList([last, *(self.loss_of(*pair) for pair in channels[self._earlier])])

    def term(
        self, loss: Any, student: Outputs, teacher: Outputs, labels: Tensor, indices: Tensor
    ) -> Tensor | Sequence[Tensor]:
        if not self.stages:
            return super().term(loss, student, teacher, labels, indices)
        terms = [loss[0](student.representation, teacher.representation)]
        pairs = zip(student.stages[self._earlier], teacher.stages[self._earlier], strict=True)
        return terms + [
            of_stage(self._means(s), self._means(t)) for of_stage, (s, t) in zip(loss[1:], pairs, strict=True)
        ]

    @property
    def _earlier(self) -> slice:
        """The places of the stages before the last that are compared."""
        return slice(-1 - self.stages, -1)

    def _means(self, maps: Tensor) -> Tensor:
        """Returns the mean of each channel, (n, c, h, w) -> (n, c), of all processes if the method gathers."""
        from bnn_itrd.distillers.base import gather

        means = maps.float().mean((2, 3))
        return gather(means) if self.gather else means

    def loss_of(self, student_dim: int, teacher_dim: int) -> Any:
        """Returns the loss for representations (n, student_dim) and (n, teacher_dim), with its linear projection."""
        from bnn_itrd.losses.itrd import ITRD

        loss = ITRD(
            student_dim,
            teacher_dim,
            alpha=self.alpha,
            beta_corr=self.beta_corr,
            beta_mi=self.beta_mi,
            corr_log=self.corr_log,
            off_diagonal=self.off_diagonal,
            decorrelation=self.decorrelation,
            log=self.log,
            order=self.order,
            degree=self.degree,
        )
        if self.beta_corr == 0 and (self.beta_mi == 0 or student_dim == teacher_dim):
            # The projection is not used. Data-parallel training would wait for its gradient, and weight decay would
            # change it.
            loss.embed.requires_grad_(False)
        return loss

    @property
    def watches(self) -> bool:
        return True

    def watch(self, loss: Any, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns columns of metrics.csv: ITRD's two losses, and statistics of the projection and the representations.

        They are those of the last representation, also with `stages`. The projection's are left out if it is not used.
        The representations' are the entropies of `gram_entropies`.
        """
        from bnn_itrd.distillers.watching import gram_entropies, of_projection

        z_s, z_t = student.representation, teacher.representation
        if self.stages:
            loss = loss[0]
        found: dict[str, Tensor] = loss.parts(z_s, z_t)
        if loss.embed.weight.requires_grad:
            found |= of_projection(loss.embed.weight, z_s, loss.embed(z_s.to(loss.embed.weight.dtype)))
        return found | gram_entropies(z_s, z_t, order=self.order, degree=self.degree)

    @property
    def gathers(self) -> bool:
        return self.gather
