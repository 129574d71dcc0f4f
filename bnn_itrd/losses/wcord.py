"""WCoRD: losses on Wasserstein distances between the embeddings of student and teacher."""

import torch
from einops import einsum, reduce
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ._inputs import as_float, check_count, check_log_odds, check_matrix, check_positive, check_weight
from ._memory import ContrastMemory, Embedding, check_representations

__all__ = ["WCoRD", "global_contrast_loss", "sinkhorn"]


def sinkhorn(cost: Tensor, *, epsilon: float = 0.1, iterations: int = 50) -> Tensor:
    """Returns the cheapest way to move n equal masses to m places, smoothed by an entropy; (n, m) -> (n, m).

    It is ``argmin_P <P, cost> - epsilon H(P)`` over the couplings P of two uniform distributions. `iterations` is the
    number of Sinkhorn's scaling rounds, which run on logarithms, so that no exp under- or overflows. A round ends with
    the columns, which sum to 1 / m up to rounding; the rows sum to 1 / n in the limit. The result has no gradient: by
    the envelope theorem, <P, cost> has the right gradient with a constant P.
    Half precision is computed in float32, under autocast too.

    Raises ValueError unless cost is a matrix, epsilon > 0 and iterations >= 1.
    Cuturi, Sinkhorn Distances, NeurIPS 2013.

    >>> sinkhorn(torch.zeros(2, 2)).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    check_matrix("cost", cost)
    check_positive("epsilon", epsilon)
    check_count("iterations", iterations)
    with torch.no_grad(), torch.autocast(cost.device.type, enabled=False):
        (cost,) = as_float(cost.detach())
        log_plan = -cost / epsilon
        for _ in range(iterations):
            log_plan = log_plan.log_softmax(dim=1).log_softmax(dim=0)
        return log_plan.exp() / cost.shape[1]


def global_contrast_loss(log_odds: Tensor) -> Tensor:
    """Returns WCoRD's global loss of scores: low where column 0 is high and the K others are low; (n, 1 + K) -> ().

    It is ``-(h_0 - sum_k h_k)`` with h = sigmoid(log_odds), averaged over the n rows. A row scores one sample: column 0
    against the same sample in the other network (a pair), the others against K other samples. So the loss is the
    negative Wasserstein-1 distance between paired and unpaired embeddings in its dual form, E_joint[h] - K
    E_independent[h], with h as the critic. Half precision is computed in float32, under autocast too.

    Raises ValueError unless log_odds is (n, 1 + K) with n, K >= 1.
    Chen, Wang, Gan, Liu, Henao and Carin, Wasserstein Contrastive Representation Distillation, CVPR 2021, sec. 3.

    >>> global_contrast_loss(torch.zeros(1, 3)).item()
    0.5
    """
    check_log_odds(log_odds)
    with torch.autocast(log_odds.device.type, enabled=False):
        (log_odds,) = as_float(log_odds)
        critic = log_odds.sigmoid()
        return (reduce(critic[:, 1:], "n k -> n", "sum") - critic[:, 0]).mean()


class WCoRD(nn.Module):
    """Computes the weighted sum of WCoRD's global and local losses on representations; (n, d_s), (n, d_t), (n,) -> ().

    The representations are embedded by `embed_s` and `embed_t`, which are trained with the student's optimiser and
    dropped afterwards.
    - The global loss compares the batch with all training samples: `global_contrast_loss` of the student's scores plus
      that of the teacher's. Scores, banks and negatives are those of `CRD` (see `ContrastMemory`), but the embeddings'
      weights are divided by their spectral norm (one power iteration per training step). The embeddings are normalised
      after that. So it acts only through the share of the bias and the size of the gradient. The slope of a score h is
      at most 1 / (4 temperature) in an embedding, and unbounded in z.
    - The local loss compares the samples of the batch: <P, C>, where C_ij = 1 - v_s[i] . v_t[j] are the cosine
      distances of their embeddings v, and P is the coupling that `sinkhorn` returns. It lies between 0 and 2.

    The total's weight is 1, because both losses have their own, beta_global (0.8, as for CRD) and beta_local. There is
    no published code. The defaults of the local loss, and where the spectral norm is applied (by which the paper keeps
    its critic Lipschitz), are this project's interpretation and should be tuned. `CRD` describes `labels`, `indices`
    and data-parallel training. A loss whose beta is 0 is not computed; without the global one the banks do not change.
    All is computed in float32 at least, under autocast too.

    Raises ValueError for negative betas, and as `CRD` and `sinkhorn` do.
    Chen et al., CVPR 2021, sec. 3.

    >>> loss = WCoRD(4, 8, torch.tensor([0, 0, 1, 1]), num_negatives=2)
    >>> loss(torch.rand(2, 4), torch.rand(2, 8), torch.tensor([0, 3])).shape
    torch.Size([])
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        labels: Tensor,
        *,
        beta_global: float = 0.8,
        beta_local: float = 0.05,
        embed_dim: int = 128,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        epsilon: float = 0.1,
        iterations: int = 50,
    ) -> None:
        super().__init__()
        check_count("student_dim", student_dim)
        check_count("teacher_dim", teacher_dim)
        check_weight("beta_global", beta_global)
        check_weight("beta_local", beta_local)
        check_positive("epsilon", epsilon)
        check_count("iterations", iterations)
        self.student_dim, self.teacher_dim = student_dim, teacher_dim
        self.beta_global, self.beta_local = beta_global, beta_local
        self.epsilon, self.iterations = epsilon, iterations
        self.memory = ContrastMemory(
            labels, embed_dim, num_negatives=num_negatives, temperature=temperature, momentum=momentum
        )
        self.embed_s = Embedding(student_dim, embed_dim)
        self.embed_t = Embedding(teacher_dim, embed_dim)
        parametrizations.spectral_norm(self.embed_s.linear)
        parametrizations.spectral_norm(self.embed_t.linear)

    def parts(self, z_s: Tensor, z_t: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Returns the weighted losses "global" and "local", which forward adds; one whose beta is 0 is left out."""
        check_representations(z_s, z_t, indices, self.student_dim, self.teacher_dim)
        terms: dict[str, Tensor] = {}
        with torch.autocast(z_s.device.type, enabled=False):
            v_s, v_t = self.embed_s(z_s), self.embed_t(z_t)
            if self.beta_global:
                log_odds_s, log_odds_t = self.memory(v_s, v_t, indices)
                contrast = global_contrast_loss(log_odds_s) + global_contrast_loss(log_odds_t)
                terms["global"] = self.beta_global * contrast
            if self.beta_local:
                v_s, v_t = as_float(v_s, v_t)
                cost = 1 - einsum(v_s, v_t, "i d, j d -> i j")
                plan = sinkhorn(cost, epsilon=self.epsilon, iterations=self.iterations)
                terms["local"] = self.beta_local * (plan * cost).sum()
        return terms

    def forward(self, z_s: Tensor, z_t: Tensor, indices: Tensor) -> Tensor:
        """Returns the sum of `parts`; where both betas are 0, it is 0 and has no gradient."""
        total = torch.zeros((), device=z_s.device)
        for term in self.parts(z_s, z_t, indices).values():
            total = total + term
        return total

    def extra_repr(self) -> str:
        return f"beta_global={self.beta_global}, beta_local={self.beta_local}, epsilon={self.epsilon}"
