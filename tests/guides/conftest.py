"""The fixture of the guides' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guide_blocks import Guide


@pytest.fixture
def guide() -> Callable[[str], Guide]:
    """``guide("own-loss")``: the blocks of docs/guides/own-loss.md."""
    return Guide
