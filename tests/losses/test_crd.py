"""CRD against a NumPy loop over two steps: its negatives, its memory bank, and what it learns."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers.loss_modules import LABELS, apply_to_floats, bank_args, build_module, crd_reference, seeded_loss
from helpers.numpy_layers import to_numpy
from torch import Tensor, nn

from bnn_itrd.losses._memory import ContrastMemory
from bnn_itrd.losses.crd import CRD


@pytest.mark.parametrize(("n", "negatives", "temperature", "momentum"), [(4, 7, 0.07, 0.5), (1, 1, 1.0, 0.0)])
def test_crd_equals_loop_over_two_steps(n: int, negatives: int, temperature: float, momentum: float) -> None:
    torch.manual_seed(0)
    crd = CRD(6, 5, LABELS, embed_dim=8, num_negatives=negatives, temperature=temperature, momentum=momentum).double()
    z_s, z_t, indices = bank_args(n)
    z: list[float] = []
    for step in range(2):
        if step:
            z_s, z_t, indices = z_s.flip(0) + 0.2, 2 * z_t - 1, (indices + 3) % len(LABELS)
        banks = [to_numpy(crd.memory.bank_s).copy(), to_numpy(crd.memory.bank_t).copy()]
        torch.manual_seed(step)
        drawn = crd.memory.draw(indices)
        torch.manual_seed(step)
        got = crd(z_s, z_t, indices)
        samples = np.concatenate([indices.numpy()[:, None], drawn.numpy()], axis=1)
        v = []
        for embed, x in ((crd.embed_s, z_s), (crd.embed_t, z_t)):
            rows = to_numpy(x) @ to_numpy(embed.linear.weight).T + to_numpy(embed.linear.bias)
            v.append(np.stack([row / math.sqrt(float(row @ row)) for row in rows]))
        if not step:
            for a, bank in ((v[0], banks[1]), (v[1], banks[0])):
                scores = [math.exp(float(a[i] @ bank[j]) / temperature) for i in range(n) for j in samples[i]]
                z.append(sum(scores) / len(scores) * len(LABELS))
        h = crd_reference(v[0], v[1], banks, samples, z, temperature)
        want = 0.0
        for d, i in np.ndindex(2, n):
            want -= (math.log(h[d, i, 0]) + sum(math.log(1 - x) for x in h[d, i, 1:])) / n
        assert got.item() == pytest.approx(want, rel=1e-10)
        np.testing.assert_allclose(np.exp(to_numpy(crd.memory.log_z)), z, rtol=1e-10)
        for i, j in enumerate(indices.tolist()):
            for bank, a in zip(banks, v, strict=True):
                row = momentum * bank[j] + (1 - momentum) * a[i]
                bank[j] = row / math.sqrt(float(row @ row))
        np.testing.assert_allclose(to_numpy(crd.memory.bank_s), banks[0], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(to_numpy(crd.memory.bank_t), banks[1], rtol=1e-12, atol=1e-15)


def test_negatives_are_of_other_classes_and_uniform() -> None:
    torch.manual_seed(0)
    memory = ContrastMemory(LABELS, 4, num_negatives=13, temperature=0.07, momentum=0.5)
    labels, indices = LABELS, torch.arange(len(LABELS))
    draws = torch.cat([memory.draw(indices) for _ in range(300)], dim=1)
    assert draws.dtype == torch.int64
    for i, label in enumerate(LABELS.tolist()):
        others = torch.nonzero(labels != label)[:, 0]
        counts = draws[i].bincount(minlength=len(LABELS))
        assert not counts[labels == label].any()
        expected = draws.shape[1] / len(others)
        chi_square = ((counts[others] - expected) ** 2 / expected).sum().item()
        # 12 to 15 degrees of freedom; the 20 values' largest is below this with probability 0.999.
        assert chi_square < 45
    # An unused class number in between, and one class per sample.
    sparse = ContrastMemory(torch.tensor([5, 0, 9]), 2, num_negatives=2, temperature=1.0, momentum=0.0)
    assert {tuple(sorted(set(row))) for row in sparse.draw(torch.arange(3)).tolist()} <= {
        (0,), (1,), (2,), (0, 1), (0, 2), (1, 2),
    }  # fmt: skip
    assert all(i not in row for i, row in enumerate(sparse.draw(torch.arange(3)).tolist()))


def test_negatives_follow_the_global_random_state() -> None:
    memory = ContrastMemory(LABELS, 4, num_negatives=13, temperature=0.07, momentum=0.5)
    indices = torch.tensor([1, 2])
    torch.manual_seed(3)
    first, second = memory.draw(indices), memory.draw(indices)
    torch.manual_seed(3)
    assert torch.equal(memory.draw(indices), first)
    assert torch.equal(memory.draw(indices), second)
    assert not torch.equal(first, second)


def test_bank_writes_the_rows_of_the_batch_alone_and_keeps_them_unit() -> None:
    crd = build_module("crd").float()
    assert isinstance(crd, CRD)
    z_s, z_t, indices = (x.float() if x.is_floating_point() else x for x in bank_args())
    for bank in (crd.memory.bank_s, crd.memory.bank_t):
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(len(LABELS)))
    before = copy.deepcopy(crd.memory.state_dict())
    crd.eval()
    crd(z_s, z_t, indices)
    assert all(torch.equal(before[k], v) for k, v in crd.memory.state_dict().items())
    crd.train()
    for _ in range(30):
        crd(z_s, z_t, indices)
    others = [i for i in range(len(LABELS)) if i not in indices.tolist()]
    for name in ("bank_s", "bank_t"):
        bank = crd.memory.state_dict()[name]
        assert torch.equal(bank[others], before[name][others])
        assert not torch.isclose(bank[indices], before[name][indices]).all(dim=1).any()
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(len(LABELS)))
    torch.testing.assert_close(crd.memory.bank_s[indices], crd.embed_s(z_s), rtol=1e-4, atol=1e-5)
    assert crd.memory.started


def test_scores_against_the_whole_bank_are_not_kept_for_the_backward_pass() -> None:
    torch.manual_seed(0)
    memory = ContrastMemory(LABELS, 4, num_negatives=3, temperature=0.5, momentum=0.5)
    v_s, v_t = (nn.functional.normalize(torch.randn(16, 4)).requires_grad_() for _ in range(2))
    sizes: list[int] = []

    def keep(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        s, t = memory(v_s, v_t, torch.arange(16))
        (s.sum() + t.sum()).backward()
    assert len(LABELS) * 4 <= max(sizes) < 16 * len(LABELS)


def test_bank_rows_that_would_vanish_stay() -> None:
    torch.manual_seed(0)
    memory = ContrastMemory(LABELS, 4, num_negatives=3, temperature=0.5, momentum=0.5)
    indices = torch.tensor([2, 8])
    old_s, old_t = memory.bank_s[indices].clone(), memory.bank_t[indices].clone()
    # The student's rows are opposite to the stored ones, the teacher's are zero.
    memory(-old_s, 0 * old_t, indices)
    torch.testing.assert_close(memory.bank_s[indices], old_s)
    torch.testing.assert_close(memory.bank_t[indices], old_t)


@pytest.mark.parametrize("name", ["crd", "wcord"])
def test_banks_resume_exactly(name: str) -> None:
    module = build_module(name).float()
    z_s, z_t, indices = (x.float() if x.is_floating_point() else x for x in bank_args())

    def steps(m: nn.Module, count: int) -> list[float]:
        optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
        losses = []
        for i in range(count):
            optimiser.zero_grad()
            loss = m(z_s + i, z_t - i, (indices + i) % len(LABELS))
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    steps(module, 3)
    state = copy.deepcopy(module.state_dict())
    assert {"memory.bank_s", "memory.bank_t", "memory.log_z", "memory.started"} <= set(state)
    assert not {"memory.labels", "memory.order", "memory.start", "memory.count"} & set(state)
    torch.manual_seed(11)
    want = steps(module, 3)
    other = build_module(name, seed=99).float()
    other.load_state_dict(state)
    torch.manual_seed(11)
    assert steps(other, 3) == want
    for key, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("name", ["crd", "wcord"])
def test_writing_the_bank_leaves_earlier_graphs_intact(name: str) -> None:
    module = build_module(name).double()
    args = apply_to_floats(bank_args(), lambda x: x.requires_grad_())
    twin = copy.deepcopy(module)
    (want,) = torch.autograd.grad(seeded_loss(twin, args), args[0])
    loss = seeded_loss(module, args)
    module(*bank_args())
    (got,) = torch.autograd.grad(loss, args[0])
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert got.any()


def test_crd_finds_pairs() -> None:
    """Embeddings of two views of the same samples: the positives' odds rise above the negatives'."""
    torch.manual_seed(0)
    crd = CRD(6, 6, LABELS, embed_dim=4, num_negatives=10, temperature=0.2)
    z_t = torch.randn(len(LABELS), 6)
    z_s = z_t @ torch.randn(6, 6)
    optimiser = torch.optim.Adam(crd.parameters(), lr=0.02)
    indices = torch.arange(len(LABELS))
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = crd(z_s, z_t, indices)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
