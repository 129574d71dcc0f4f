"""SRD, a distillation method that compares normalised representations, the student's through a projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnn_itrd.distillers.method import Facts
from bnn_itrd.distillers.setting import Setting
from bnn_itrd.distillers.views import OfRepresentations

if TYPE_CHECKING:
    from torch import Tensor

    from bnn_itrd.models import Outputs

__all__ = ["SRDConfig"]


@dataclass(frozen=True, kw_only=True)
class SRDConfig(OfRepresentations):
    """Compares the student's projected features with the teacher's, both normalised (SRD; Miles, Mikolajczyk 2024).

    Args:
        exponent: exponent of the differences in the form log_sum
        norm: normalisation of both: batch (each feature over the batch), l2 (each sample to norm 1) or none
        projector: linear, or mlp (two layers with a ReLU between them)
        form: log_sum (logarithm of the sum of powers), or l2 (half the squared distance, which needs another weight)
    """

    facts = Facts(
        matches="normalised representations through a projection",
        owns="projection, running statistics (`norm: batch`)",
        reduction="logarithm of a sum over samples and features; `form: l2`: half the sum over features, mean over "
        "samples, another weight",
        source="Miles 2024",
        own_part="{name}",
        found={
            "norm": "decides how the singular values of the projection develop (poster, a figure); batch is used",
            "projector": "every projector decorrelates its output from its input as it trains, which can make the "
            "distillation worse (poster, a figure); linear is used",
            "form": "log_sum is used; l2 is what the derivation is of (poster, eq. 1 to 3)",
        },
    )

    weight: float = 2.0
    exponent: float = 4.0
    norm: Literal["none", "l2", "batch"] = "batch"
    projector: Literal["linear", "mlp"] = "linear"
    form: Literal["log_sum", "l2"] = "log_sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.exponent >= 1, "exponent", ">= 1")

    def loss(self, setting: Setting) -> Any:
        from bnn_itrd.losses.srd import SRD

        return SRD(
            *self.dims(setting), exponent=self.exponent, norm=self.norm, projector=self.projector, form=self.form
        )

    @property
    def watches(self) -> bool:
        return True

    def watch(self, loss: Any, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
        """Returns columns of metrics.csv: statistics of the projection, and the entropies of both networks' features.

        The singular values of a projection with two layers (mlp) are those of its first layer.
        """
        from bnn_itrd.distillers.watching import gram_entropies, of_projection

        z_s, z_t = student.representation, teacher.representation
        first = next(loss.projector.parameters())
        return of_projection(first, z_s, loss.projector(z_s.to(first.dtype))) | gram_entropies(z_s, z_t)
