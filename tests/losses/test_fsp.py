"""FSP's matrices, and the loss over stages, against NumPy."""

import numpy as np
import pytest
from helpers.loss_modules import CASES, Array, build_module, random_map, random_maps
from helpers.numpy_layers import numpy_pool_both, to_numpy

from bnn_itrd.losses.fsp import FSP, fsp_matrix


def _loop_fsp(a: Array, b: Array) -> Array:
    a, b = numpy_pool_both(a, b)
    gram = np.zeros((a.shape[0], a.shape[1], b.shape[1]))
    for n, i, j in np.ndindex(*gram.shape):
        gram[n, i, j] = sum(x * y for x, y in zip(a[n, i].ravel(), b[n, j].ravel(), strict=True)) / a[0, 0].size
    return gram


@pytest.mark.parametrize(("s", "t"), [((2, 4, 4), (3, 4, 4)), ((3, 8, 6), (2, 4, 3)), ((1, 2, 3), (4, 5, 3))])
def test_fsp_matrix_equals_loop(s: tuple[int, int, int], t: tuple[int, int, int]) -> None:
    a, b = random_map(3, s, 1), random_map(3, t, 2)
    np.testing.assert_allclose(fsp_matrix(a, b).numpy(), _loop_fsp(to_numpy(a), to_numpy(b)), rtol=1e-10, atol=1e-14)


def test_fsp_equals_loop() -> None:
    fsp = build_module("fsp")
    student, teacher = CASES["fsp"][1](3)
    want = 0.0
    for k in range(2):
        g_s = _loop_fsp(to_numpy(student[k]), to_numpy(student[k + 1]))
        g_t = _loop_fsp(to_numpy(teacher[k]), to_numpy(teacher[k + 1]))
        want += float(((g_s - g_t) ** 2).mean())
    assert fsp(student, teacher).item() == pytest.approx(want, rel=1e-12)
    equal = FSP([(2, 4, 4), (3, 2, 2)], [(2, 4, 4), (3, 2, 2)])
    maps = random_maps(2, [(2, 4, 4), (3, 2, 2)], 5)
    assert equal(maps, maps).item() == 0
    assert not list(equal.parameters())
