"""benchmarks/arm_model.py joins blocks of instructions that the border of a page cuts."""

from __future__ import annotations

from collections import Counter

from helpers.scripts import load_script


def test_a_loop_across_a_page_is_one_block() -> None:
    model = load_script("benchmarks/arm_model.py")
    # (address, number of instructions of four bytes) -> runs; the page's border is at 4096
    blocks = Counter({(4088, 2): 5, (4096, 3): 7, (4000, 4): 9, (8184, 2): 4})
    model.join_pages(blocks)
    assert +blocks == {(4088, 5): 5, (4096, 3): 2, (4000, 4): 9, (8184, 2): 4}
