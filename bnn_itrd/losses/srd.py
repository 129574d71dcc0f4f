"""SRD: a loss that matches normalised representations through a trained projection of the student's."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ._inputs import as_float, check_count, check_rows, check_same_shape
from ._scale import unit

__all__ = ["SRD", "half_squared_distance", "srd_loss"]

Norm = Literal["none", "l2", "batch"]
Projector = Literal["linear", "mlp"]
Form = Literal["log_sum", "l2"]

_SMALLEST_DIFFERENCE = 1e-4


def srd_loss(z_s: Tensor, z_t: Tensor, *, exponent: float = 4.0) -> Tensor:
    """Returns the logarithm of the summed differences of two representations; (n, d), (n, d) -> (), in nats.

    It is ``ln sum_ij |z_s - z_t|_ij^exponent``. The sum is over samples and features, so the batch size only adds a
    constant. The gradient grows without bound as the inputs approach each other. So below ln(n d) + exponent ln(1e-4)
    the loss is constant, with a zero gradient: there, standardised features differ by about 1e-4, which is rounding.
    Half-precision inputs are computed in float32, under autocast too. Gradients flow to both inputs: pass a detached
    teacher.

    Raises ValueError unless both are (n, d) and exponent >= 1 (below, the gradient is infinite at equality).
    The LogSum of Miles and Mikolajczyk, Understanding the Role of the Projector in Knowledge Distillation, AAAI 2024.

    >>> round(srd_loss(torch.tensor([[2.0]]), torch.tensor([[0.0]])).item(), 4)  # 4 ln 2
    2.7726
    """
    _check_exponent(exponent)
    check_same_shape("z_s", z_s, "z_t", z_t, "(n, d)")
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        distance = (z_s - z_t).abs().pow(exponent).sum()
        floor = max(z_s.numel() * _SMALLEST_DIFFERENCE**exponent, torch.finfo(distance.dtype).tiny)
        return distance.clamp_min(floor).log()


def half_squared_distance(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns half the squared distance of two representations, ||z_s - z_t||_F^2 / 2n; (n, d), (n, d) -> ().

    It is summed over features and averaged over samples. The paper's poster sums over samples too, so its weight is 1 /
    n of the one here. Half-precision inputs are computed in float32, under autocast too. Gradients flow to both inputs:
    pass a detached teacher.

    Raises ValueError unless both are (n, d).
    Miles and Mikolajczyk, Understanding the Role of the Projector in Knowledge Distillation, AAAI 2024, its poster, eq.
    1.

    >>> half_squared_distance(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2)).item()
    6.25
    """
    check_same_shape("z_s", z_s, "z_t", z_t, "(n, d)")
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        return (z_s - z_t).square().sum() / (2 * len(z_s))


class SRD(nn.Module):
    """Projects the student's representation, normalises both, and returns `srd_loss`; (n, d_s), (n, d_t) -> ().

    z_s and z_t are the inputs of the last linear layer. `projector` is a trainable Linear(d_s, d_t), without a bias,
    which the normalisation would remove. It is used where d_s = d_t too; train it with the student's optimiser and drop
    it afterwards. BatchNorm standardises each feature over the batch, with the biased variance and eps = 1e-4, without
    affine parameters (the authors' code); in evaluation mode it uses its running statistics.

    The usual weight is 2. The paper gives neither the weight nor the exponent: both are those of the authors' ImageNet
    code, 2 ln sum |.|^4, which also adds the loss KL(teacher || student) of the logits (here `KD(tau=1)`). In
    torchdistill the default exponent is 1. The loss is computed in the dtype of the weights, float32 unless changed,
    under autocast too. Statistics are those of the given batch; under DistributedDataParallel that is the batch of one
    process. A constant feature is standardised to 0.

    The arguments replace the three parts of the method, as the paper's poster does. `norm`: "l2" scales each sample's
    features to norm 1 (a zero row stays zero, with a zero gradient) and "none" does not scale; both have no state.
    `projector`: "mlp" is Linear(d_s, d_t), ReLU and Linear(d_t, d_t) without a bias; the poster has non-linear
    projections but does not say of which layers. `form`: "l2" takes `half_squared_distance` instead of `srd_loss`.

    Raises ValueError for sizes < 1, exponent < 1, another norm, projector or form; forward raises it for inputs of
    other widths, and with BatchNorm in training for n = 1. Miles and Mikolajczyk, AAAI 2024, and its poster.

    >>> SRD(4, 8)(torch.rand(5, 4), torch.rand(5, 8)).shape
    torch.Size([])
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        exponent: float = 4.0,
        norm: Norm = "batch",
        projector: Projector = "linear",
        form: Form = "log_sum",
    ) -> None:
        super().__init__()
        check_count("student_dim", student_dim)
        check_count("teacher_dim", teacher_dim)
        _check_exponent(exponent)
        for name, value, kinds in (("norm", norm, Norm), ("projector", projector, Projector), ("form", form, Form)):
            if value not in get_args(kinds):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}, got {value!r}")
        self.student_dim, self.teacher_dim, self.exponent = student_dim, teacher_dim, exponent
        self.norm, self.form = norm, form
        self.projector: nn.Module = nn.Linear(student_dim, teacher_dim, bias=False)
        if projector == "mlp":
            layers = (nn.Linear(student_dim, teacher_dim), nn.ReLU(), nn.Linear(teacher_dim, teacher_dim, bias=False))
            self.projector = nn.Sequential(*layers)
        if norm == "batch":
            self.norm_s = nn.BatchNorm1d(teacher_dim, eps=1e-4, affine=False)
            self.norm_t = nn.BatchNorm1d(teacher_dim, eps=1e-4, affine=False)

    def forward(self, z_s: Tensor, z_t: Tensor) -> Tensor:
        check_rows("z_s", z_s, self.student_dim)
        check_rows("z_t", z_t, self.teacher_dim)
        if self.norm == "batch" and self.training and len(z_s) < 2:
            raise ValueError(f"z_s must have n >= 2 samples in training, for the variance of BatchNorm, got {len(z_s)}")
        with torch.autocast(z_s.device.type, enabled=False):
            # BatchNorm needs its input in the dtype of its running statistics, which is that of the weights.
            dtype = next(self.projector.parameters()).dtype
            projected, z_t = self.projector(z_s.to(dtype)), z_t.to(dtype)
            check_same_shape("the projected z_s", projected, "z_t", z_t, "(n, d)")
            if self.norm == "batch":
                projected, z_t = self.norm_s(projected), self.norm_t(z_t)
            elif self.norm == "l2":
                projected, z_t = unit(projected), unit(z_t)
            if self.form == "l2":
                return half_squared_distance(projected, z_t)
            return srd_loss(projected, z_t, exponent=self.exponent)

    def extra_repr(self) -> str:
        return f"norm={self.norm}, " + ("form=l2" if self.form == "l2" else f"exponent={self.exponent}")


def _check_exponent(exponent: float) -> None:
    if not 1 <= exponent < float("inf"):
        raise ValueError(f"exponent must be >= 1 and finite, got {exponent}")
