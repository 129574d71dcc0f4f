"""A finished run on small images, which the commands are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command_line import SMALL

from bnn_itrd.cli import main


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    """A finished `run` on small images."""
    out = tmp_path_factory.mktemp("road") / "run"
    assert main(["run", "digits", *SMALL, f"--data.root={tiny_npz}", f"--out={out}"]) == 0
    return out
