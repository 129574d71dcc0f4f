"""The queue of trainings: each command would start, and what is kept was trained with its settings."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest
import torch
from helpers.results import RESULTS, queue

from bnn_itrd.runs.networks import build

BLOCKS = queue.read(RESULTS / "queue.yaml")
RUNS = [run for block in BLOCKS for run in block.runs]


def test_every_command_of_the_queue_would_start() -> None:
    classes = {"cifar10": 10, "cifar100": 100}
    built: dict[str, tuple[Any, int]] = {}
    for run in RUNS:
        words = shlex.split(queue.command(run))
        assert words[:3] == ["bnn-itrd", "train", run.recipe]
        config = queue.configuration(run)
        data, network, method = run.name.split("-", 2)
        assert (config.data.name, config.network.name) == (data, network) and method.startswith(run.member)
        member = queue.member_config(config, run.member)
        assert member.train.seed == run.seed and run.name.endswith(f"-s{run.seed}")
        total = member.train.epochs + (0 if member.scheme is None else member.scheme.first_stage_epochs)
        if "-e" in run.name:
            assert f"-e{total}-" in run.name
        assert ("-val-" in run.name) == (config.data.val_fraction == 0.1)
        built[repr((member.network, member.scheme, classes[data]))] = (member, classes[data])
        assert run.teacher is not None or not member.needs_teacher
        if run.teacher is not None:
            teacher = next(r for r in RUNS if r.name == run.teacher)
            assert config.teacher == f"runs/{teacher.name}/teacher" and teacher.name.startswith(f"{data}-{network}-")
            # A teacher that saw the held-out images would tell of them.
            assert queue.configuration(teacher).data.val_fraction == config.data.val_fraction
    for member, count in built.values():
        with torch.device("meta"):
            build(member.network, member.scheme, num_classes=count, input_shape=(3, 32, 32))


def test_the_papers_block_has_the_papers_settings() -> None:
    """Miles et al. 2022: SGD, 0.1, batch 256, 5 epochs of warm-up, weight decay 5e-4, tau 0.85 to 0.99."""
    rows = next(block for block in BLOCKS if "the paper's four rows" in block.title).runs
    block = [queue.configuration(run) for run in rows]
    assert [run.member for run in rows] == ["recu", "recu-kd", "recu-corr", "recu-itrd"]
    for config in block:
        t = config.train
        assert (t.optimizer, t.lr, t.batch_size, t.warmup, t.weight_decay) == ("sgd", 0.1, 256, 5.0, 5e-4)
        assert (config.scheme.tau_min, config.scheme.tau_max, config.network.per_conv) == (0.85, 0.99, None)
    itrd = block[3].students["recu-itrd"].itrd
    assert itrd is not None and (itrd.alpha, itrd.beta_corr, itrd.beta_mi) == (1.01, 2.0, 1.0)


def test_expected_minutes_are_the_arithmetic() -> None:
    by_name = {run.name: run for run in RUNS}
    # 400 epochs of 50,000 images at 33,200 a second; one minute besides.
    assert queue.minutes(by_name["cifar10-resnet18-recu-itrd-e400-s0"]) == pytest.approx(20_000_000 / 33_200 / 60 + 1)
    # 2 + 4 epochs of 45,000 at 400.
    assert queue.minutes(by_name["cifar10-resnet20-recu-itrd-two_stage-e6-val-s0"]) == pytest.approx(11.25 + 1)
    # 10 epochs of 15,000 at 130; where the others take part without labels, of all 45,000.
    few = by_name["cifar10-resnet20-recu-n15000-e10-val-s0"]
    assert queue.minutes(few) == pytest.approx(150_000 / 130 / 60 + 1)
    all_of_them = dataclasses.replace(few, fields=(*few.fields, ("data.unlabelled", True)))
    assert queue.minutes(all_of_them) == pytest.approx(450_000 / 130 / 60 + 1)


def test_a_block_on_a_gpu_fits_a_quarter_of_an_hour() -> None:
    """About 650 s of training; two blocks are of several quarters, as they say."""
    training = {
        block.title[0]: sum(queue.minutes(run) - 1 for run in block.runs) for block in BLOCKS if block.device == "gpu"
    }
    assert all(training[number] * 60 < 650 for number in "1234569"), training


def test_the_results_stay_small() -> None:
    """What is kept of runs travels with the repository: at most 64 MB, most of it two networks' weights."""
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 64e6


def test_what_is_kept_was_trained_with_the_queues_settings() -> None:
    """The precision is the one that auto chose there."""
    for run in BLOCKS[0].runs:
        assert queue._strange(run, RESULTS / run.name / "config.yaml") == []
        config = queue.member_config(queue.configuration(run), run.member)
        assert config.train.precision == "auto" and run.name.endswith("-s0")


def test_queue_md_is_made_from_the_queue() -> None:
    assert (RESULTS / "QUEUE.md").read_text() == queue.render(BLOCKS, RESULTS)
    text = (RESULTS / "QUEUE.md").read_text()
    assert [line[6:].partition(",")[0] for line in text.splitlines() if line.startswith("- [")] == [
        r.name for r in RUNS
    ]
