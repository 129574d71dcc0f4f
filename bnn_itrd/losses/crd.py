"""CRD: a loss that contrasts a sample's embedding with the other network's embeddings of other samples."""

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from ._inputs import as_float, check_count, check_log_odds
from ._memory import ContrastMemory, Embedding, check_representations

__all__ = ["CRD", "crd_loss"]


def crd_loss(log_odds: Tensor) -> Tensor:
    """Returns CRD's loss of scores: low where column 0 is high and the K other columns are low; (n, 1 + K) -> ().

    It is ``-(ln h_0 + sum_k ln(1 - h_k))`` with h = sigmoid(log_odds), averaged over the n rows, in nats. A row scores
    one sample: column 0 against the same sample in the other network (the positive), the others against K samples of
    other classes (the negatives). (The published code adds 1e-7 to a denominator; softplus needs no such guard.) Half
    precision is computed in float32, under autocast too.

    Raises ValueError unless log_odds is (n, 1 + K) with n, K >= 1.
    Tian, Krishnan and Isola, Contrastive Representation Distillation, ICLR 2020, eq. 18.

    >>> round(crd_loss(torch.zeros(1, 2)).item(), 4)  # 2 ln 2
    1.3863
    """
    check_log_odds(log_odds)
    with torch.autocast(log_odds.device.type, enabled=False):
        (log_odds,) = as_float(log_odds)
        positive, negatives = F.softplus(-log_odds[:, 0]), F.softplus(log_odds[:, 1:])
        return (positive + reduce(negatives, "n k -> n", "sum")).mean()


class CRD(nn.Module):
    """Computes CRD's contrastive loss between representations; (n, d_s), (n, d_t), (n,) -> (), in nats.

    z_s and z_t are the inputs of the last linear layer of student and teacher. `indices` (int64) are the positions of
    the samples in the training set, before shuffling, and `labels` are the classes of all its samples in that order.
    `embed_s` and `embed_t`, each a Linear(d, embed_dim) with L2 normalisation, are trained with the student's optimiser
    and dropped afterwards. `memory` holds two banks with the embeddings of all samples, one per network. A sample of
    one network is scored against the other's bank, and the loss is `crd_loss` of the student's scores plus that of the
    teacher's. `ContrastMemory` describes the scores, the update of the banks and the choice of negatives.

    The usual weight is 0.8, with weight 1 for the cross-entropy; it belongs to the sum over K = 16384 negatives and
    over both directions. The positive is the sample itself (RepDistiller's "exact" mode). The negatives are of other
    classes, drawn with replacement (in RepDistiller, without). Only the rows of the given batch are written to the
    banks; under DistributedDataParallel that is the batch of one process. Gradients flow to both representations and
    embeddings, never into a bank. The loss is computed in float32 at least, under autocast too.

    Raises ValueError for dims < 1 and arguments that `ContrastMemory` refuses (more negatives than the bank has, for
    instance); forward raises it for other widths, and for indices that are not (n,) int64. For an index outside the
    bank the device raises IndexError. Tian, Krishnan and Isola, ICLR 2020, eq. 18 and 19.

    >>> loss = CRD(4, 8, torch.tensor([0, 0, 1, 1]), num_negatives=2)
    >>> loss(torch.rand(2, 4), torch.rand(2, 8), torch.tensor([0, 3])).shape
    torch.Size([])
    """

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        labels: Tensor,
        *,
        embed_dim: int = 128,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        check_count("student_dim", student_dim)
        check_count("teacher_dim", teacher_dim)
        self.student_dim, self.teacher_dim = student_dim, teacher_dim
        self.memory = ContrastMemory(
            labels, embed_dim, num_negatives=num_negatives, temperature=temperature, momentum=momentum
        )
        self.embed_s = Embedding(student_dim, embed_dim)
        self.embed_t = Embedding(teacher_dim, embed_dim)

    def forward(self, z_s: Tensor, z_t: Tensor, indices: Tensor) -> Tensor:
        check_representations(z_s, z_t, indices, self.student_dim, self.teacher_dim)
        with torch.autocast(z_s.device.type, enabled=False):
            log_odds_s, log_odds_t = self.memory(self.embed_s(z_s), self.embed_t(z_t), indices)
            return crd_loss(log_odds_s) + crd_loss(log_odds_t)
