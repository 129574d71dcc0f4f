"""Correlation congruence: its kernel, its consecutive form, and its module against NumPy."""

import pytest
import torch
from helpers.classic_losses import loop_cc, loop_consecutive, student_and_teacher

from bnn_itrd.losses.cc import CC, cc_consecutive_loss, cc_loss


def test_high_order_kernel_is_gaussian() -> None:
    s, t = student_and_teacher(((5, 3), (5, 4)))
    kernels = []
    for z in (s, t):
        x = z / z.norm(dim=1, keepdim=True)
        kernels.append(torch.exp(-0.4 * torch.cdist(x, x).square()))
    want = (kernels[0] - kernels[1]).square().mean().item()
    assert cc_loss(s, t, order=20).item() == pytest.approx(want, rel=1e-9)
    assert cc_loss(s, t).item() == pytest.approx(want, rel=0.3)


def test_consecutive_form_ignores_every_second_sample() -> None:
    s, t = student_and_teacher(((5, 3), (5, 3)))
    t[1::2] = s[1::2]
    assert cc_consecutive_loss(s, t).item() == 0


@pytest.mark.parametrize("form", ["consecutive", "kernel"])
def test_cc_equals_loop(form: str) -> None:
    torch.manual_seed(0)
    cc = CC(3, 5, embed_dim=4, form=form).double()
    s, t = student_and_teacher(((6, 3), (6, 5)))
    embedded_s, embedded_t = (
        x.numpy() @ embed.weight.detach().numpy().T + embed.bias.detach().numpy()
        for x, embed in ((s, cc.embed_s), (t, cc.embed_t))
    )
    loop = loop_cc if form == "kernel" else loop_consecutive
    assert cc(s, t).item() == pytest.approx(loop(embedded_s, embedded_t), rel=1e-10)
    assert CC(3, 5).embed_s.out_features == CC(3, 5).embed_t.out_features == 128
    assert CC(3, 5).form == "consecutive"
