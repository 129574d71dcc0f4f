"""The memory banks of CRD and WCoRD, which hold embeddings of all training samples and score a batch against them."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._inputs import as_float, check_count, check_positive, check_rows
from ._scale import unit

__all__ = ["ContrastMemory", "Embedding", "check_representations"]


class Embedding(nn.Module):
    """A Linear(dim, embed_dim) whose output rows are divided by their L2 norm; (n, dim) -> (n, embed_dim)."""

    def __init__(self, dim: int, embed_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, embed_dim)

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            weight = self.linear.weight
            dtype = torch.promote_types(torch.float32, weight.dtype)
            return unit(F.linear(z.to(dtype), weight.to(dtype), self.linear.bias.to(dtype)))


class ContrastMemory(nn.Module):
    """Holds a bank of embeddings for each network, and scores a batch of one network against the bank of the other.

    A bank (num_samples, dim) has one row of norm 1 for each training sample. For an embedding v of one network, w_0 is
    its own sample's row in the other network's bank (the positive). w_1 to w_K are rows of samples of other classes
    (the negatives), drawn uniformly with replacement. The scores a_k are log-odds, for temperature T:

        a_k = v . w_k / T - ln Z - ln(K / num_samples)        sigmoid(a_k) = x / (x + K / num_samples)

    with x = exp(v . w_k / T) / Z, which is eq. 19 of CRD's paper; Z is computed as in its code. Each direction has its
    own Z: num_samples times the mean of exp(v . w_k / T) over the first training batch. It does not change afterwards.
    In training, once the scores are computed, a row of the batch becomes momentum * row + (1 - momentum) * embedding,
    divided by its norm. Sample indices must be unique within a batch: of the new rows of a repeated index, an arbitrary
    one is kept. In evaluation mode nothing is written.

    The checkpoint holds the banks, ln Z and whether Z is set; the labels and their order are buffers outside of it.
    Negatives depend only on the device's global random state. No operation waits for the device. One matrix product
    computes the scores against the whole bank, (n, num_samples), from which the drawn ones are taken. A training step
    needs memory for that matrix, for one direction at a time, and for a copy of each bank: 64 MB for CIFAR at n = 64
    and 2.6 GB for ImageNet at n = 256. The two (n, 1 + K, dim) tensors of published code need 1.1 and 4.3 GB.

    Raises ValueError for labels that are not (num_samples,) int64 >= 0 of at least two classes, num_negatives > the
    samples outside the largest class, dim < 1, temperature <= 0, momentum outside [0, 1).
    """

    bank_s: Tensor
    bank_t: Tensor
    log_z: Tensor
    started: Tensor
    labels: Tensor
    order: Tensor
    start: Tensor
    count: Tensor

    def __init__(self, labels: Tensor, dim: int, *, num_negatives: int, temperature: float, momentum: float) -> None:
        super().__init__()
        if labels.ndim != 1 or labels.dtype != torch.int64 or (labels < 0).any():
            raise ValueError(
                f"labels must be (num_samples,) int64 >= 0, one per training sample, "
                f"got {tuple(labels.shape)} {labels.dtype}"
            )
        count = labels.bincount()
        if (count > 0).sum() < 2:
            raise ValueError(f"labels must have at least 2 classes, got {int((count > 0).sum())}")
        least = len(labels) - int(count.max())
        check_count("num_negatives", num_negatives)
        if num_negatives > least:
            raise ValueError(
                f"num_negatives must be in [1, {least}] (the samples outside the largest class), got {num_negatives}"
            )
        check_count("embed_dim", dim)
        check_positive("temperature", temperature)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.num_samples, self.num_negatives = len(labels), num_negatives
        self.temperature, self.momentum = temperature, momentum
        # The published code draws from a uniform distribution, which gives rows of about unit length.
        self.register_buffer("bank_s", unit(torch.randn(len(labels), dim)))
        self.register_buffer("bank_t", unit(torch.randn(len(labels), dim)))
        self.register_buffer("log_z", torch.zeros(2))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        # `order` has the samples sorted by class, so the samples of one class are one interval of positions.
        self.register_buffer("labels", labels.clone(), persistent=False)
        self.register_buffer("order", labels.argsort(stable=True), persistent=False)
        self.register_buffer("start", count.cumsum(0) - count, persistent=False)
        self.register_buffer("count", count, persistent=False)

    def draw(self, indices: Tensor) -> Tensor:
        """Draws samples of other classes for each sample of a batch, by index; (n,) -> (n, num_negatives), int64."""
        label = self.labels.index_select(0, indices)
        start, count = rearrange(self.start[label], "n -> n 1"), rearrange(self.count[label], "n -> n 1")
        # The remainder of 62 random bits is uniform up to 1e-12.
        draw = torch.randint(2**62, (len(indices), self.num_negatives), device=indices.device)
        position = draw % (self.num_samples - count)
        return self.order[torch.where(position < start, position, position + count)]

    def forward(self, v_s: Tensor, v_t: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores (log-odds) of the student's and of the teacher's embeddings against the other's bank.

        (n, dim), (n, dim), (n,) int64 -> (n, 1 + K), (n, 1 + K). Column 0 compares with the same sample, the other K
        columns with samples of other classes. v_s, v_t: rows of norm 1; indices: the samples' positions in the banks.
        """
        samples = torch.cat([rearrange(indices, "n -> n 1"), self.draw(indices)], dim=1)
        s = self._similarities(v_s, self.bank_t, samples)
        t = self._similarities(v_t, self.bank_s, samples)
        log_z = torch.where(self.started, self.log_z, self._first_log_z(s, t).to(self.log_z.dtype))
        if self.training:
            with torch.no_grad():
                self.log_z.copy_(log_z)
                self.started.fill_(True)
                self._write(self.bank_s, v_s, indices)
                self._write(self.bank_t, v_t, indices)
        offset = log_z + math.log(self.num_negatives / self.num_samples)
        return s - offset[0], t - offset[1]

    def _similarities(self, v: Tensor, bank: Tensor, samples: Tensor) -> Tensor:
        # The backward pass needs the current rows, which are overwritten below.
        v, bank = as_float(v, bank.clone() if self.training else bank)
        rows = rearrange(torch.arange(len(v), device=v.device), "n -> n 1")
        drawn = rearrange(samples + rows * self.num_samples, "n k -> (n k)")
        # torch.gather would keep all scores in memory for the backward pass, which needs only their shape.
        scores = (v @ bank.T).flatten().index_select(0, drawn)
        return rearrange(scores, "(n k) -> n k", n=len(v)) / self.temperature

    def _first_log_z(self, s: Tensor, t: Tensor) -> Tensor:
        logs = [x.detach().flatten().logsumexp(0) - math.log(x.numel() / self.num_samples) for x in (s, t)]
        return torch.stack(logs)

    def _write(self, bank: Tensor, v: Tensor, indices: Tensor) -> None:
        old = bank[indices]
        new = self.momentum * old + (1 - self.momentum) * v.detach().to(bank.dtype)
        # Where the old row and the embedding are opposite and cancel, the old row is kept.
        vanished = rearrange(new.norm(dim=1), "n -> n 1") < 1e-6
        bank.index_copy_(0, indices, unit(torch.where(vanished, old, new)))


def check_representations(z_s: Tensor, z_t: Tensor, indices: Tensor, student_dim: int, teacher_dim: int) -> None:
    """Raises ValueError unless z_s is (n, student_dim), z_t (n, teacher_dim) and indices (n,) int64, with n >= 1."""
    check_rows("z_s", z_s, student_dim)
    check_rows("z_t", z_t, teacher_dim)
    if len(z_s) != len(z_t):
        raise ValueError(f"z_s and z_t must have the same batch size, got {len(z_s)} and {len(z_t)}")
    if indices.shape != z_s.shape[:1] or indices.dtype != torch.int64:
        raise ValueError(f"indices must be ({len(z_s)},) int64, got {tuple(indices.shape)} {indices.dtype}")
