"""Two processes compute what one does, on the same global batch; a lost one ends the other, and nothing is lost.

One process imports everything and forks each pair (gloo, on the CPU); what one process computes, the test's own does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import TINY, write_npz
from lightning.fabric import Fabric
from torch import Tensor, nn

import bnn_itrd.losses as losses
from bnn_itrd import cli
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.distillers import METHODS
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.training.checkpoint import load_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import fit
from bnn_itrd.training.trainer import Trainer

QUIET = LogConfig(tensorboard=False, progress=False)
SHAPE = (3, 16, 16)
STUDENT, TEACHER = (6, 8, 12), (8, 10, 14)
KD, ITRD, CRD, WCoRD = (METHODS[name] for name in ("kd", "itrd", "crd", "wcord"))
BATCH = 32


class Net(nn.Module):
    """Three stages and no BatchNorm: several processes compute exactly what one does."""

    stages = ("a", "b", "c")

    def __init__(self, widths: tuple[int, ...] = STUDENT, *, binary: bool = False) -> None:
        super().__init__()
        conv: Any = BinaryConv2d if binary else nn.Conv2d
        self.a = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.Hardtanh())
        self.b = nn.Sequential(conv(widths[0], widths[1], 3, stride=2, padding=1), nn.Hardtanh())
        self.c = nn.Conv2d(widths[1], widths[2], 3, 2, 1)
        self.linear = nn.Linear(widths[2], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.linear.weight.dtype)
        return self.linear(self.c(self.b(self.a(x))).mean((2, 3)))


def made(seed: int, widths: tuple[int, ...] = STUDENT, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return Net(widths, **options)


def trainer_of(fabric: Fabric, student: nn.Module, distill: DistillConfig, labels: Tensor | None) -> Trainer:
    train = TrainConfig(epochs=2, batch_size=BATCH, lr=0.02, warmup_epochs=0.0)
    teacher = made(2, TEACHER).eval() if distill.methods else None
    return Trainer(
        student, teacher, input_shape=SHAPE, train=train, distill=distill, fabric=fabric, labels=labels
    )  # fmt: skip


def batches(data: ImageData, fabric: Fabric, *, epoch: int = 0) -> Any:
    """A process's part of each batch; one process gets the samples in the order in which two gather them."""
    halves = [
        data.train.train_batches(BATCH, seed=0, epoch=epoch, device=fabric.device, rank=rank, world=2)
        for rank in range(2)
    ]
    if fabric.world_size == 2:
        return halves[fabric.global_rank]
    return (map(torch.cat, zip(*pair, strict=True)) for pair in zip(*halves, strict=True))


def gradients(trainer: Trainer, batch: Any) -> dict[str, Any]:
    """The loss's parts, over all processes, and the gradients of one step."""
    world = trainer.fabric.world_size
    loss, parts, _ = trainer.step_module(*batch)
    trainer.fabric.backward(loss)
    if world > 1:
        torch.distributed.all_reduce(parts)
    grads = {n: p.grad.clone() for n, p in trainer.objective.named_parameters() if p.grad is not None}
    return {"parts": parts / world, "grads": grads}


# ---- what is the same in one process and in two; each returns what the test compares


def a_step_of_itrd(fabric: Fabric, data: ImageData, out: Path) -> Any:
    found = {}
    for gather in (True, False):
        distill = DistillConfig(kd=KD(), itrd=ITRD(gather=gather))
        trainer = trainer_of(fabric, made(1), distill, data.train.labels)
        found[str(gather)] = gradients(trainer, next(batches(data, fabric)))
    return found


def a_step_of_a_binary_student(fabric: Fabric, data: ImageData, out: Path) -> Any:
    """In float64: the order of a sum in float32 alone moves a gradient of 2 by 4e-6."""
    torch.set_default_dtype(torch.float64)
    try:
        distill = DistillConfig(kd=KD(), itrd=ITRD())
        trainer = trainer_of(fabric, made(1, binary=True), distill, data.train.labels)
        trainer.objective.train()
        return gradients(trainer, next(batches(data, fabric)))
    finally:
        torch.set_default_dtype(torch.float32)


def twenty_steps(fabric: Fabric, data: ImageData, out: Path) -> Any:
    trainer = trainer_of(fabric, made(1), DistillConfig(), None)
    first = {n: p.detach().clone() for n, p in trainer.objective.named_parameters()}
    steps = 0
    for epoch in range(7):
        for batch in batches(data, fabric, epoch=epoch):
            if steps < 20:
                trainer.step(*batch, lr=0.02)
                steps += 1
    return {"first": first, "last": {n: p.detach() for n, p in trainer.objective.named_parameters()}, "steps": steps}


def steps_with_banks(fabric: Fabric, data: ImageData, out: Path) -> Any:
    distill = DistillConfig(crd=CRD(embed_dim=6, negatives=16), wcord=WCoRD(embed_dim=6, negatives=9))
    trainer = trainer_of(fabric, made(1), distill, data.train.labels)
    trainer.objective.train()
    steps = []
    for i, batch in enumerate(batches(data, fabric)):
        torch.manual_seed(i)  # the same negatives in each process
        steps.append(gradients(trainer, batch))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    return {"steps": steps, "state": trainer.objective.state_dict()}


# Neither BatchNorm nor a batch's statistics of one process in any of them.
SHARED = DistillConfig(
    kd=KD(), ab=METHODS["ab"](weight=1e-3, preparation_epochs=1), fsp=METHODS["fsp"](preparation_epochs=2)
)
PREPARED = {"shared": SHARED, "ft": DistillConfig(ft=METHODS["ft"](preparation_epochs=2))}


def runs_with_preparation(fabric: Fabric, data: ImageData, out: Path) -> Any:
    train = TrainConfig(epochs=2, batch_size=BATCH, lr=0.02, warmup_epochs=0.0)
    for name, distill in PREPARED.items():
        fit(
            made(1, TEACHER), made(2, TEACHER).eval(), data, train=train, distill=distill, fabric=fabric, log=QUIET,
            out=out / f"{name}-{fabric.world_size}", identity={},
        )  # fmt: skip


def a_step_with_some_labels(fabric: Fabric, data: ImageData, out: Path) -> Any:
    """Labels that are not as many in either process."""
    rank, world = fabric.global_rank, fabric.world_size
    labels = torch.where(torch.arange(BATCH) % 4 < 1, 2, UNLABELLED)
    labels[1] = 0
    images = torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))
    batch = images[rank::world], labels[rank::world], torch.arange(BATCH)[rank::world]
    return gradients(trainer_of(fabric, made(1), DistillConfig(), labels), batch)


def banks(fabric: Fabric, data: ImageData, out: Path) -> Any:
    """Each process draws its own negatives here: what they write must be the same all the same."""
    distill = DistillConfig(crd=CRD(embed_dim=6, negatives=16))
    trainer = trainer_of(fabric, made(1), distill, data.train.labels)
    trainer.objective.train()
    torch.manual_seed(fabric.global_rank)
    for batch in batches(data, fabric):
        gradients(trainer, batch)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    return trainer.objective.state_dict()


SAME = (
    a_step_of_itrd, a_step_of_a_binary_student, twenty_steps, steps_with_banks, runs_with_preparation,
    a_step_with_some_labels, banks,
)  # fmt: skip


def compute(fabric: Fabric, npz: Path, out: Path) -> int:
    data = load_data(DataConfig(name="cifar10", root=str(npz)))
    for case in SAME:
        torch.save(case(fabric, data, out), out / f"{case.__name__}-{fabric.world_size}-{fabric.global_rank}.pt")
    return 0


def two_that_compute(npz: Path, out: Path) -> int:
    return compute(make_fabric(FabricConfig("cpu", 2, strategy="ddp", threads=1)), npz, out)


# ---- a lost process


def member(npz: Path, out: Path) -> list[str]:
    return [
        "train", "digits", *TINY, "--teacher_train.epochs=3", "--log.tensorboard=false", f"--data.root={npz}",
        "--data.image_size=8", "--network.width=0.25", "--member=teacher", "--fabric.devices=2",
        f"--out={out / 'lost'}",
    ]  # fmt: skip


def two_of_which_one_is_killed(npz: Path, out: Path) -> int:
    """The command; the second process is killed in the midst of the third epoch."""
    original = Trainer.step

    def step(self: Trainer, *args: Any, **options: Any) -> Any:
        if self.epoch == 2 and self.fabric.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **options)

    Trainer.step = step  # type: ignore[method-assign]
    return cli.main(member(npz, out))


# ---- pairs


def in_a_pair(name: str, work: Callable[[Path, Path], int], npz: Path, out: Path) -> list[int]:
    """Forks two processes as a launcher of several starts them; returns their statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    children = []
    for rank in range(2):
        if (child := os.fork()) == 0:
            log = os.open(out / f"{name}-{rank}.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ["LOCAL_RANK"] = str(rank)
            try:
                sys.exit(work(npz, out))  # by the interpreter's own way out
            except Exception:
                traceback.print_exc()
                sys.exit(70)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def fork_pairs(npz: Path, out: Path) -> None:
    """What the process does that imports everything once."""
    pairs = (two_that_compute, two_of_which_one_is_killed)
    statuses = {work.__name__: in_a_pair(work.__name__, work, npz, out) for work in pairs}
    (out / "statuses.json").write_text(json.dumps(statuses))


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("data") / "tiny.npz", size=16)


@pytest.fixture(scope="module")
def results(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which one process, and each of two, left what they computed."""
    out = tmp_path_factory.mktemp("pairs")
    here = Path(__file__)
    environment = {
        **os.environ, "PYTHONPATH": f"{here.parent}:{here.parents[1]}", "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    code = f"import pathlib, sys, {here.stem} as cases; cases.fork_pairs(*map(pathlib.Path, sys.argv[1:]))"
    pairs = subprocess.Popen([sys.executable, "-c", code, str(npz), str(out)], env=environment)
    try:
        compute(make_fabric(FabricConfig(accelerator="cpu", threads=1)), npz, out)
        assert pairs.wait(600) == 0
    finally:
        pairs.kill()
    return out


def loaded(results: Path, case: Callable[..., Any], of: str) -> Any:
    statuses = json.loads((results / "statuses.json").read_text())["two_that_compute"]
    assert statuses == [0, 0], (results / "two_that_compute-0.txt").read_text()[-3000:]
    return torch.load(results / f"{case.__name__}-{of}.pt", weights_only=True)


def test_itrd_gathers_the_representations_of_both(results: Path) -> None:
    one, two = (loaded(results, a_step_of_itrd, of) for of in ("1-0", "2-0"))
    torch.testing.assert_close(two["True"]["parts"], one["True"]["parts"], rtol=1e-5, atol=1e-6)
    assert any("embed" in name for name in one["True"]["grads"])
    for name, grad in one["True"]["grads"].items():
        scale = float(grad.abs().max())
        torch.testing.assert_close(two["True"]["grads"][name], grad, rtol=1e-4, atol=5e-5 * scale, msg=name)
    # statistics of each process's own half are another loss: the comparison above can fail
    assert torch.equal(one["True"]["parts"], one["False"]["parts"])
    assert not torch.allclose(two["False"]["parts"], one["False"]["parts"], rtol=1e-3)


def test_a_binary_student_has_the_gradients_of_one_process(results: Path) -> None:
    one, two, second = (loaded(results, a_step_of_a_binary_student, of) for of in ("1-0", "2-0", "2-1"))
    torch.testing.assert_close(two["parts"], one["parts"], rtol=1e-6, atol=1e-6)
    assert {"student.b.0.weight", "student.a.0.weight"} <= one["grads"].keys()
    for name, grad in one["grads"].items():
        assert float(grad.abs().max()) > 0, name
        torch.testing.assert_close(two["grads"][name], grad, rtol=0, atol=1e-6, msg=name)
        assert torch.equal(two["grads"][name], second["grads"][name]), name


def test_twenty_steps_end_in_the_weights_of_one_process(results: Path) -> None:
    one, two = (loaded(results, twenty_steps, of) for of in ("1-0", "2-0"))
    assert one["steps"] == two["steps"] == 20
    for name, weight in one["last"].items():
        torch.testing.assert_close(two["last"][name], weight, rtol=0, atol=1e-5, msg=name)
        assert float((weight - one["first"][name]).abs().max()) > 1e-3, name


def test_steps_with_memory_banks_are_those_of_one_process(npz: Path, results: Path) -> None:
    one, first, second = (loaded(results, steps_with_banks, of) for of in ("1-0", "2-0", "2-1"))
    assert len(one["steps"]) == 3
    for a, b in zip(one["steps"], first["steps"], strict=True):
        torch.testing.assert_close(b["parts"], a["parts"], rtol=1e-4, atol=1e-5)
        for name, grad in a["grads"].items():
            torch.testing.assert_close(b["grads"][name], grad, rtol=1e-3, atol=1e-4 * float(grad.abs().max()), msg=name)
    for key, value in one["state"].items():
        torch.testing.assert_close(first["state"][key], value, rtol=1e-3, atol=1e-4, msg=key)
        assert torch.equal(first["state"][key], second["state"][key]), key
    labels = load_data(DataConfig(name="cifar10", root=str(npz))).train.labels
    start = losses.CRD(STUDENT[-1], TEACHER[-1], labels, embed_dim=6, num_negatives=16).memory.bank_s
    assert first["state"]["distillers.crd.loss.memory.bank_s"].shape == start.shape


@pytest.mark.parametrize("kind", PREPARED)
def test_runs_with_phases_of_preparation_are_those_of_one_process(results: Path, kind: str) -> None:
    loaded(results, runs_with_preparation, "2-0")
    a, b = (load_checkpoint(results / f"{kind}-{n}" / "last.pt") for n in (1, 2))
    assert len(a["preparation"]) == len(b["preparation"]) == 2
    for x, y in zip(a["preparation"], b["preparation"], strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-4)
    # FT's translator has BatchNorm, whose statistics are each process's own
    for key in [k for k in a["objective"] if kind == "shared" or "paraphraser" in k]:
        torch.testing.assert_close(b["objective"][key], a["objective"][key], rtol=1e-3, atol=1e-4, msg=key)


def test_images_without_a_label_count_in_neither_process(results: Path) -> None:
    one, two = (loaded(results, a_step_with_some_labels, of) for of in ("1-0", "2-0"))
    torch.testing.assert_close(two["parts"], one["parts"])
    for name, grad in one["grads"].items():
        torch.testing.assert_close(two["grads"][name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_banks_of_both_stay_equal(results: Path) -> None:
    first, second = (loaded(results, banks, of) for of in ("2-0", "2-1"))
    for name in ("bank_s", "bank_t", "log_z"):
        key = f"distillers.crd.loss.memory.{name}"
        assert torch.equal(first[key], second[key]), name


def test_a_killed_process_ends_the_other_and_the_same_command_continues(
    npz: Path, results: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The command that continues starts its second process itself."""
    assert json.loads((results / "statuses.json").read_text())["two_of_which_one_is_killed"] == [3, -signal.SIGKILL]
    said = (results / "two_of_which_one_is_killed-0.txt").read_text()
    last = said.strip().splitlines()[-1]
    assert last.startswith("bnn-itrd: rank 1 of 2 (pid ") and last.endswith(
        " has ended before the training did, and this one with it; the same command continues from the last finished "
        "epoch"
    )
    assert "Traceback" not in said and "gloo/" not in said
    folder = results / "lost" / "teacher"
    assert load_checkpoint(folder / "last.pt")["epoch"] == 2
    done = command(*member(npz, results), timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("ONNX bytes") == 1
    assert yaml.safe_load((folder / "config.yaml").read_text())["fabric"]["devices"] == 2
    assert [row["epoch"] for row in load_checkpoint(folder / "last.pt")["history"]] == [1, 2, 3]
