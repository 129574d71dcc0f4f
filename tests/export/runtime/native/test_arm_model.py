"""benchmarks/arm_model.py joins blocks of instructions that the border of a page cuts."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path


def test_a_loop_across_a_page_is_one_block() -> None:
    path = Path(__file__).parents[4] / "benchmarks" / "arm_model.py"
    spec = importlib.util.spec_from_file_location("arm_model", path)
    assert spec is not None and spec.loader is not None
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    # (address, number of instructions of four bytes) -> runs; the page's border is at 4096
    blocks = Counter({(4088, 2): 5, (4096, 3): 7, (4000, 4): 9, (8184, 2): 4})
    model.join_pages(blocks)
    assert +blocks == {(4088, 5): 5, (4096, 3): 2, (4000, 4): 9, (8184, 2): 4}
