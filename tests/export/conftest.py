"""Fixtures of the tests of export/: one thread, and a small network with its ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.exported import randomised
from torch import nn

from bnn_itrd.export import to_onnx
from bnn_itrd.export.runtimes import environments
from bnn_itrd.quant import BinaryConv2d


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Makes torch use one thread: small networks are quickest so, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Returns a function from a runtime's name to its environment's Python interpreter.

    It takes the user's environments. If one is missing, it is made in a cache for this run, where links stand for those
    that the user has: environments are looked for in one cache only.
    """
    have = [environments.folder(name) for name in environments.RUNTIMES if environments.find(name) is not None]
    with pytest.MonkeyPatch.context() as patch:
        if len(have) < len(environments.RUNTIMES):
            cache = tmp_path_factory.mktemp("cache")
            patch.setenv("XDG_CACHE_HOME", str(cache))
            (cache / "bnn_itrd").mkdir()
            for folder in have:
                (cache / "bnn_itrd" / folder.name).symlink_to(folder)
        yield lambda name: environments.find(name) or environments.setup(name)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder into which all tests of a file may write."""
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="session")
def tiny() -> Any:
    """Returns a network of a float convolution, a binary one and a linear layer. Tests that change it take a copy."""
    torch.manual_seed(11)
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            BinaryConv2d(8, 8, 3),
            nn.Flatten(),
            nn.Linear(288, 3),
        )
    )
    model.input_shape = (3, 8, 8)
    return model


@pytest.fixture(scope="session")
def tiny_file(tiny: nn.Module, folder: Path) -> Path:
    """Returns the path of the ONNX file of `tiny`."""
    return to_onnx(tiny, folder / "tiny.onnx")
