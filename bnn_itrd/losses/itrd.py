"""ITRD, information theoretic representation distillation: the sum of its two losses, with a trained projection."""

import torch
from torch import Tensor, nn

from ._inputs import apply_linear, check_count, check_positive, check_rows, check_weight
from .correlation import correlation_loss
from .mutual_information import mutual_information_loss

__all__ = ["ITRD"]


class ITRD(nn.Module):
    """Computes the weighted sum of ITRD's correlation and mutual-information losses; (n, d_s), (n, d_t) -> ().

    It is ``beta_corr * correlation_loss(embed(z_s), z_t) + beta_mi * mutual_information_loss(z_s, z_t)``. z_s and z_t
    are the inputs of the last linear layer of student and teacher. `embed` is a trainable Linear(d_s, d_t): train it
    with the student's optimiser and drop it afterwards. The mutual information uses it only where d_s != d_t. So with
    beta_corr = 0 and equal sizes, `embed` gets no gradient. The paper's alpha is 1.01 where student and teacher have
    one architecture (which includes a binary student of it), and 1.5 across architectures.

    `alpha`, `off_diagonal`, `decorrelation` and `corr_log` (there: log) are arguments of `correlation_loss`; `log`,
    `order` and `degree` are arguments of `mutual_information_loss`. With the defaults the loss is the paper's.

    The cross-entropy is not included. A term whose beta is 0 is not computed. All is computed in float32 at least,
    under autocast too. If it is compiled inside an autocast region, PyTorch runs the matrix products of the backward
    pass in that region's dtype; the value stays float32. Statistics are those of the given batch; under
    DistributedDataParallel that is the batch of one process.

    Raises ValueError for sizes < 1, alpha or order <= 0, degree < 1, and negative weights; forward raises it for inputs
    of other widths than these. Miles, Lopez Rodriguez and Mikolajczyk, Information Theoretic Representation
    Distillation, BMVC 2022, eq. 10 without its cross-entropy, and algorithm 1.

    >>> ITRD(4, 8)(torch.rand(5, 4), torch.rand(5, 8)).shape
    torch.Size([])
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        *,
        alpha: float = 1.01,
        beta_corr: float = 2.0,
        beta_mi: float = 1.0,
        corr_log: bool = True,
        off_diagonal: float = 0.0,
        decorrelation: float = 0.0,
        log: bool = False,
        order: float = 2.0,
        degree: int = 1,
    ) -> None:
        super().__init__()
        check_count("student_dim", student_dim)
        check_count("teacher_dim", teacher_dim)
        check_positive("alpha", alpha)
        check_weight("beta_corr", beta_corr)
        check_weight("beta_mi", beta_mi)
        check_weight("off_diagonal", off_diagonal)
        check_weight("decorrelation", decorrelation)
        check_positive("order", order)
        check_count("degree", degree)
        self.student_dim, self.teacher_dim = student_dim, teacher_dim
        self.alpha, self.beta_corr, self.beta_mi = alpha, beta_corr, beta_mi
        self.corr_log, self.off_diagonal, self.decorrelation = corr_log, off_diagonal, decorrelation
        self.log, self.order, self.degree = log, order, degree
        self.embed = nn.Linear(student_dim, teacher_dim)

    def parts(self, z_s: Tensor, z_t: Tensor) -> dict[str, Tensor]:
        """Returns the two weighted losses, "corr" and "mi", which forward adds; one whose beta is 0 is left out."""
        check_rows("z_s", z_s, self.student_dim)
        check_rows("z_t", z_t, self.teacher_dim)
        raw_for_mi = self.student_dim == self.teacher_dim
        embedded = z_s if raw_for_mi and not self.beta_corr else self._embed(z_s)
        terms: dict[str, Tensor] = {}
        if self.beta_corr:
            correlation = correlation_loss(
                embedded,
                z_t,
                alpha=self.alpha,
                log=self.corr_log,
                off_diagonal=self.off_diagonal,
                decorrelation=self.decorrelation,
            )
            terms["corr"] = self.beta_corr * correlation
        if self.beta_mi:
            compared = z_s if raw_for_mi else embedded
            information = mutual_information_loss(compared, z_t, log=self.log, order=self.order, degree=self.degree)
            terms["mi"] = self.beta_mi * information
        return terms

    def forward(self, z_s: Tensor, z_t: Tensor) -> Tensor:
        """Returns the sum of `parts`; where both betas are 0, it is 0 and has no gradient."""
        total = torch.zeros((), device=z_s.device)
        for term in self.parts(z_s, z_t).values():
            total = total + term
        return total

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta_corr={self.beta_corr}, beta_mi={self.beta_mi}"

    def _embed(self, z_s: Tensor) -> Tensor:
        with torch.autocast(z_s.device.type, enabled=False):
            return apply_linear(self.embed, z_s)
