"""The page on ITRD's worth for binary students shows the numbers of results/."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.sweeps import difference_on_page, table_of_page

from bnn_itrd.experiments.statistics import method_statistics

ROOT = Path(__file__).parents[2]


def test_its_table_is_that_of_the_sweep() -> None:
    lines = table_of_page(ROOT / "docs" / "research" / "itrd-for-binary-students.md", "itrd-binary")
    record = json.loads((ROOT / "results" / "itrd-binary" / "sweep.json").read_text())
    over = {name: method_statistics(record["points"], name) for name in ("plain", "itrd")}
    plain, itrd = ({row["student"]: row for row in rows} for rows in over.values())
    assert len(lines) == len(plain) == 15 and all(len(row["seeds"]) == 3 for row in plain.values())
    for words, top1, *differences in lines:
        name = words.rpartition("(`")[2].removesuffix("`)")
        assert top1 == f"{plain[name]['mean']:.2f} ± {plain[name]['std']:.2f}"
        for cell, row in zip(differences, (plain[name], itrd[name]), strict=True):
            assert cell == difference_on_page(row)
