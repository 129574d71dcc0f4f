"""What VID, DIST, SRD, ICKD, FSP, AB, FT, ReviewKD, CRD and WCoRD say of arguments that they cannot take."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.loss_modules import LABELS
from torch import Tensor

from bnn_itrd.losses.ab import AB, ab_loss
from bnn_itrd.losses.crd import CRD, crd_loss
from bnn_itrd.losses.dist import DIST, dist_loss
from bnn_itrd.losses.fsp import FSP, fsp_matrix
from bnn_itrd.losses.ft import FT, factor_loss
from bnn_itrd.losses.ickd import ICKD, ickd_loss
from bnn_itrd.losses.reviewkd import ReviewKD, hierarchical_context_loss
from bnn_itrd.losses.srd import SRD, srd_loss
from bnn_itrd.losses.vid import VID, VIDLogits, vid_loss
from bnn_itrd.losses.wcord import WCoRD, global_contrast_loss, sinkhorn


def _z(*shape: int) -> Tensor:
    return torch.zeros(*shape)


def _crd(**kwargs: Any) -> CRD:
    return CRD(6, 5, **{"labels": LABELS, "num_negatives": 4, **kwargs})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vid_loss(_z(2, 3), _z(2, 4), _z(3)), r"must have the same shape .*, got \(2, 3\) and \(2, 4\)"),
        (lambda: vid_loss(_z(2, 3), _z(2, 3), _z(2)), r"variance must be \(3,\), got \(2,\)"),
        (
            lambda: vid_loss(_z(2, 3), _z(2, 3), _z(3), reduction="max"),
            r'reduction must be "mean" or "sum", got \'max\'',
        ),
        (lambda: VID((3, 4), (3, 4, 4)), r"student_shape must be \(c, h, w\) with integers >= 1, got \(3, 4\)"),
        (lambda: VID((3, 4, 4), (0, 4, 4)), r"teacher_shape must be \(c, h, w\) .*, got \(0, 4, 4\)"),
        (lambda: VID((3, 4, 4), (3, 4, 4), init_variance=0), r"init_variance must be > 0 and finite, got 0"),
        (lambda: VID((3, 4, 4), (3, 4, 4), init_variance=1e-6), r"init_variance must be > 1e-05, got 1e-06"),
        (lambda: VID((3, 4, 4), (3, 4, 4), reduction="x"), r"reduction must be"),
        (lambda: VID((3, 4, 4), (2, 4, 4))(_z(2, 4, 4, 4), _z(2, 2, 4, 4)), r"student_map must be \(n, 3, h, w\)"),
        (lambda: VID((3, 4, 4), (2, 4, 4))(_z(2, 3, 4, 4), _z(2, 2, 4)), r"teacher_map must be \(n, 2, h, w\)"),
        (lambda: VID((3, 4, 4), (2, 4, 4))(_z(2, 3, 4, 4), _z(3, 2, 4, 4)), r"the same batch size, got 2 and 3"),
        (lambda: VIDLogits(0, 4), r"student_dim must be an integer >= 1, got 0"),
        (lambda: VIDLogits(4, 3)(_z(2, 4), _z(2, 4)), r"teacher_logits must be \(n, 3\) with n >= 1, got \(2, 4\)"),
        (lambda: VIDLogits(4, 3)(_z(2, 4), _z(3, 3)), r"must have the same shape \(n, k\), got \(2, 3\) and \(3, 3\)"),
        (lambda: dist_loss(_z(2, 3), _z(2, 4)), r"student and teacher must have the same shape \(n, k\)"),
        (lambda: DIST(beta=-1.0), r"beta must be >= 0 and finite, got -1.0"),
        (lambda: DIST(gamma=math.nan), r"gamma must be >= 0 and finite, got nan"),
        (lambda: DIST(tau=0.0), r"tau must be > 0 and finite, got 0.0"),
        (lambda: srd_loss(_z(2, 3), _z(2, 4)), r"z_s and z_t must have the same shape \(n, d\)"),
        (lambda: SRD(3, 4, exponent=0.5), r"exponent must be >= 1 and finite, got 0.5"),
        (lambda: SRD(3, 4, norm="layer"), r"norm must be one of none, l2, batch, got 'layer'"),  # type: ignore[arg-type]
        (lambda: SRD(3, 4, projector="deep"), r"projector must be one of linear, mlp, got 'deep'"),  # type: ignore[arg-type]
        (lambda: SRD(3, 4, form="l1"), r"form must be one of log_sum, l2, got 'l1'"),  # type: ignore[arg-type]
        (lambda: SRD(3, 0), r"teacher_dim must be an integer >= 1, got 0"),
        (lambda: SRD(3, 4)(_z(2, 4), _z(2, 4)), r"z_s must be \(n, 3\) with n >= 1, got \(2, 4\)"),
        (lambda: SRD(3, 4)(_z(2, 3), _z(3, 4)), r"must have the same shape \(n, d\), got \(2, 4\) and \(3, 4\)"),
        (lambda: ickd_loss(_z(2, 3, 4, 4), _z(2, 4, 4, 4)), r"must have the same number of channels, got 3 and 4"),
        (lambda: ICKD((3, 4, 4), (2, 4, 4))(_z(2, 3, 4, 4), _z(2, 3, 4, 4)), r"teacher_map must be \(n, 2, h, w\)"),
        (lambda: fsp_matrix(_z(2, 3, 4), _z(2, 3, 4, 4)), r"bottom must be \(n, c, h, w\)"),
        (lambda: FSP([(3, 4, 4)], [(3, 4, 4)]), r"same stages, at least 2, got 1 and 1"),
        (
            lambda: FSP([(3, 4, 4), (4, 2, 2)], [(3, 4, 4), (5, 2, 2)]),
            r"student_shapes\[1\] must have the teacher's 5 channels, got 4",
        ),
        (
            lambda: FSP([(3, 4, 4)] * 2, [(3, 4, 4)] * 2)([_z(2, 3, 4, 4)], [_z(2, 3, 4, 4)] * 2),
            r"student_maps must hold 2 stages, got 1",
        ),
        (lambda: ab_loss(_z(2, 3, 4, 4), _z(2, 3, 4, 2)), r"must have the same shape \(n, c, h, w\)"),
        (lambda: ab_loss(_z(2, 3, 4, 4), _z(2, 3, 4, 4), margin=0), r"margin must be > 0 and finite, got 0"),
        (
            lambda: AB([(3, 3, 3)], [(3, 4, 4)]),
            r"student_shapes\[0\] must be at least as large as, or half of, the teacher's \(4, 4\), got \(3, 3\)",
        ),
        (lambda: AB([(3, 4, 4)], []), r"must list the same stages, at least 1, got 1 and 0"),
        (
            lambda: AB([(3, 4, 4)], [(3, 4, 4)])([_z(2, 3, 4, 4)], [_z(2, 2, 4, 4)]),
            r"teacher_maps\[0\] must be \(n, 3, h, w\)",
        ),
        (
            lambda: FT((3, 4, 4), (1, 4, 4)),
            r"rate must be in \(0, 1\] and keep at least 1 of the teacher's 1 channels, got 0.5",
        ),
        (lambda: FT((3, 4, 4), (4, 4, 4), rate=1.5), r"rate must be in \(0, 1\]"),
        (lambda: FT((3, 4, 4), (4, 4, 4)).paraphraser_loss(_z(2, 3, 4, 4)), r"teacher_map must be \(n, 4, h, w\)"),
        (lambda: FT((3, 4, 4), (4, 4, 4))(_z(2, 4, 4, 4), _z(2, 4, 4, 4)), r"student_map must be \(n, 3, h, w\)"),
        (
            lambda: factor_loss(_z(2, 3, 4, 4), _z(2, 4, 4, 4), attention=False),
            r"student_factor and teacher_factor must have the same number of channels, got 3 and 4",
        ),
        (lambda: hierarchical_context_loss(_z(2, 3, 4, 4), _z(2, 3, 2, 2)), r"must have the same shape \(n, c, h, w\)"),
        (lambda: ReviewKD([], []), r"must list the same stages, at least 1, got 0 and 0"),
        (lambda: ReviewKD([(3, 4, 0)], [(3, 4, 4)]), r"student_shapes\[0\] must be \(c, h, w\)"),
        (
            lambda: ReviewKD([(3, 4, 4)], [(2, 4, 4)])([_z(2, 3, 4, 4)], [_z(2, 2, 4, 4)] * 2),
            r"teacher_maps must hold 1 stages, got 2",
        ),
        (lambda: crd_loss(_z(2, 1)), r"log_odds must be \(n, 1 \+ K\) with n, K >= 1, got \(2, 1\)"),
        (lambda: global_contrast_loss(_z(3)), r"log_odds must be \(n, 1 \+ K\)"),
        (lambda: CRD(0, 5, LABELS), r"student_dim must be an integer >= 1, got 0"),
        (lambda: CRD(6, 5, LABELS), r"num_negatives must be in \[1, 13\] .*, got 16384"),
        (lambda: _crd(num_negatives=14), r"num_negatives must be in \[1, 13\] .*, got 14"),
        (lambda: _crd(num_negatives=5.5), r"num_negatives must be an integer >= 1, got 5.5"),
        (lambda: _crd(num_negatives=0), r"num_negatives must be an integer >= 1, got 0"),
        (lambda: _crd(labels=LABELS.int()), r"labels must be \(num_samples,\) int64 .*, got \(20,\) torch.int32"),
        (lambda: _crd(labels=LABELS[:, None]), r"labels must be \(num_samples,\) int64"),
        (lambda: _crd(labels=LABELS - 1), r"labels must be \(num_samples,\) int64 >= 0"),
        (lambda: _crd(labels=0 * LABELS), r"labels must have at least 2 classes, got 1"),
        (lambda: _crd(embed_dim=8.0), r"embed_dim must be an integer >= 1, got 8.0"),
        (lambda: _crd(embed_dim=0), r"embed_dim must be an integer >= 1, got 0"),
        (lambda: _crd(temperature=0.0), r"temperature must be > 0 and finite, got 0.0"),
        (lambda: _crd(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: _crd()(_z(2, 5), _z(2, 5), LABELS[:2]), r"z_s must be \(n, 6\) with n >= 1, got \(2, 5\)"),
        (lambda: _crd()(_z(2, 6), _z(3, 5), LABELS[:2]), r"z_s and z_t must have the same batch size, got 2 and 3"),
        (lambda: _crd()(_z(2, 6), _z(2, 5), LABELS[:3]), r"indices must be \(2,\) int64, got \(3,\)"),
        (lambda: _crd()(_z(2, 6), _z(2, 5), LABELS[:2].float()), r"indices must be \(2,\) int64, got .* torch.float32"),
        (lambda: WCoRD(6, 5, LABELS), r"num_negatives must be in \[1, 13\]"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, beta_global=-1.0), r"beta_global must be >= 0"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, beta_local=math.inf), r"beta_local must be >= 0"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, epsilon=0.0), r"epsilon must be > 0"),
        (lambda: WCoRD(6, 5, LABELS, num_negatives=4, iterations=0), r"iterations must be an integer >= 1, got 0"),
        (
            lambda: WCoRD(6, 5, LABELS, num_negatives=4, iterations=50.0),  # type: ignore[arg-type]
            r"iterations must be an integer >= 1, got 50.0",
        ),
        (lambda: WCoRD(6, -1, LABELS, num_negatives=4), r"teacher_dim must be an integer >= 1, got -1"),
        (lambda: sinkhorn(_z(2, 2, 2)), r"cost must be 2-D"),
        (lambda: sinkhorn(_z(2, 2), iterations=0), r"iterations must be an integer >= 1, got 0"),
        (lambda: sinkhorn(_z(2, 2), epsilon=-1.0), r"epsilon must be > 0 and finite, got -1.0"),
    ],
)
def test_bad_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("index", [20, -1])
def test_index_beyond_the_bank_raises(index: int) -> None:
    for crd in (_crd(), _crd().eval()):
        with pytest.raises(IndexError):
            crd(_z(2, 6), _z(2, 5), torch.tensor([0, index]))
