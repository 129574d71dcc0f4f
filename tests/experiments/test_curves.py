"""The curves that are drawn from the records of runs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from helpers.results import RESULTS
from PIL import Image

from bnn_itrd.experiments import curves as runs


def test_curves_of_runs(tmp_path: Path) -> None:
    rows = [{"epoch": e, "seconds": s, "top1": t} for e, s, t in ((1, 60.0, 40.0), (2, 600.0, None), (3, 90.0, 50.0))]
    # The median epoch takes a minute and a half; the second one was not evaluated.
    assert runs.minutes_curve(rows) == [(1.5, 40.0), (4.5, 50.0)]
    assert runs.epochs_curve(rows) == [(1, 40.0), (3, 50.0)]
    assert runs.epochs_curve(rows, 2) == [(3, 40.0), (5, 50.0)]
    # ReCU, eq. 16: A exp(p) + B from tau_min to tau_max; half way it is below the middle, as exp is convex.
    scheme = {"weight": "recu", "tau_min": 0.85, "tau_max": 0.99}
    points = runs.tau_curve({"scheme": scheme}, 4)
    want = [0.85 + 0.14 * (math.exp(e / 4) - 1) / (math.e - 1) for e in range(5)]
    assert [x for x, _ in points] == [0, 1, 2, 3, 4] and [y for _, y in points] == pytest.approx(want, abs=1e-6)
    late = runs.tau_curve({"scheme": {**scheme, "first_stage_epochs": 2}}, 4)
    assert late == [(x + 2, y) for x, y in points]
    assert runs.tau_curve({"scheme": None}, 4) == [] == runs.tau_curve({"scheme": {"weight": "xnor"}}, 4)

    folders = sorted(path.parent for path in RESULTS.glob("cifar10-resnet20-recu*/metrics.csv"))[:2]
    assert runs.main([*map(str, folders), "--out", str(tmp_path / "two.png")]) == 0
    flips = tmp_path / "flips"
    shutil.copytree(folders[0], flips)
    lines = (flips / "metrics.csv").read_text().splitlines()
    (flips / "metrics.csv").write_text("\n".join([lines[0] + ",sign_flips", *(line + ",3" for line in lines[1:])]))
    assert runs.main([str(flips), "--out", str(tmp_path / "three.png"), "--epochs"]) == 0
    widths = [Image.open(tmp_path / f"{name}.png").size[0] for name in ("two", "three")]
    # A panel more where signs that flip were recorded.
    assert widths[1] * 2 == widths[0] * 3
    assert runs.main([str(tmp_path), "--out", str(tmp_path / "none.png")]) == 2
