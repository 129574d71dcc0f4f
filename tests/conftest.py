"""Fixtures that several test files share: tiny data sets on disk, and the command line in a process of its own."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.native import compile_sanitized, why_no_sanitizers
from helpers import write_npz

# A test machine has few cores, and tests of several processes share them: waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The terminal is wide, so that a printed row or sentence is one line; pytest-xdist's workers would have another width.
os.environ["COLUMNS"] = "250"
if not Path("/dev/nvidiactl").exists():
    # Without a GPU, Triton interprets its kernels on the CPU. It reads this variable when it is imported and later.
    # torch.compile is not affected, because for a CPU it makes C++.
    os.environ.setdefault("TRITON_INTERPRET", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two test files run at a time: with a thread for every core in each, they would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The files that take longest begin first: two files run at a time, and with short ones at the end neither process waits
# long for the other. xdist's own order, by the number of tests, would put files with few but long tests last.
_LONG = [
    "test_two_processes.py", "test_sweep.py", "test_run_command.py", "test_evaluate_and_predict.py",
    "test_deployment_targets.py", "test_recipes_train.py", "test_campaign.py", "test_squad_runs.py", "test_training.py",
    "test_refused_trainings.py", "test_stages_of_a_run.py", "test_queue_runs.py", "test_lce_networks.py",
    "test_own_binariser.py", "test_own_data.py", "test_own_network.py", "test_own_loop.py", "test_own_loss.py",
    "test_packaging.py", "test_finn_form.py", "test_channels_last.py", "test_qonnx_execution.py",
    "test_whole_networks.py", "test_kernels.py", "test_network_files.py", "test_environments.py",
    "test_distiller_terms.py", "test_preparation.py", "test_functional_networks.py", "test_fuse.py",
    "test_networks_for_fpga.py", "test_resnet18_file.py", "test_malformed_chains.py", "test_malformed_operators.py",
    "test_chains.py",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files of `_LONG` first, in that order; within a file the tests keep their order."""
    place = {name: i for i, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(_LONG)))


def pytest_runtest_setup() -> None:
    """Makes the exports of a process share PyTorch's table of ONNX translations, which takes half of an export's time.

    The table is shared as soon as some test has loaded it; tests without an export do not load it.
    """
    module = sys.modules.get("torch.onnx._internal.exporter._registration")
    registry = getattr(module, "ONNXRegistry", None)
    make = getattr(registry, "from_torchlib", None)
    if registry is None or make is None or hasattr(make, "shared"):
        return
    tables: dict[tuple[object, ...], Any] = {}

    def from_torchlib(*args: Any, **kwargs: Any) -> Any:
        key = (*args, *sorted(kwargs.items()))
        if key not in tables:
            tables[key] = make(*args, **kwargs)
        table = copy.copy(tables[key])  # a copy, because an export registers its own translations in it
        table.functions = {target: list(found) for target, found in table.functions.items()}
        return table

    from_torchlib.shared = True  # type: ignore[attr-defined]
    registry.from_torchlib = staticmethod(from_torchlib)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """Seeds torch before each fixture that several tests share, so that it is the same whichever test asks first.

    Afterwards the generator is as it was before.
    """
    if fixturedef.scope == "function":
        return (yield)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (yield)


@pytest.fixture(autouse=True)
def seeded_test() -> None:
    """Seeds torch before each test, so that it gives the same numbers alone and after others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the path of a data set for `--data.root`: 96 training and 48 test images of 8x8 in 3 classes."""
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the path of the native library, compiled with the address and undefined-behaviour sanitizers.

    A test that uses it is skipped if the compiler has no sanitizers.
    """
    if why := why_no_sanitizers():
        pytest.skip(why)
    return compile_sanitized(tmp_path_factory.mktemp("sanitized"))


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function that runs `bnn-itrd ARGS` in a separate process and returns the finished process."""

    def run(*args: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bnn_itrd.cli", *map(str, args)],
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
