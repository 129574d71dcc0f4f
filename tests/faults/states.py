"""Checkpoints, damaged: as bytes (sealed, and of torch.save alone), as archives, and as the values that they hold."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from helpers import TINY, write_npz

from faults.mutations import mutate_archive, mutate_bytes, mutate_tree
from faults.outcomes import OPENED, REFUSED, Silent, run_command

__all__ = ["SMALL_RUN", "mutate", "open_checkpoint", "prepare", "same_state"]

# A run of a second: a teacher and two students of ResNet-8.
SMALL_RUN = [
    *TINY,
    "--data.image_size=8",
    "--network.name=resnet8",
    "--network.width=0.25",
    "--report=false",
    "--train.checkpoint_seconds=0",
    "--teacher_train.checkpoint_seconds=0",
]
_SELDOM = 25


def same_state(a: Any, b: Any) -> bool:
    """Whether two checkpoints hold the same, bit for bit, a NaN too."""
    import torch

    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_state(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return isinstance(b, type(a)) and len(a) == len(b) and all(map(same_state, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    return bool(a == b)


def _train(folder: Path, out: Path) -> list[object]:
    root = folder / "tiny.npz"
    return ["train", "digits", *SMALL_RUN[:-2], "--member=recu", f"--data.root={root}", f"--out={out}"]


def prepare(folder: Path) -> None:
    """Trains a small run, and keeps its student's checkpoint: sealed, and as torch.save writes it."""
    import torch

    write_npz(folder / "tiny.npz")
    status, told = run_command(*_train(folder, folder / "run"))
    assert status == 0, told
    state = torch.load(folder / "run/recu/last.pt", weights_only=True)
    torch.save(state, folder / "plain.pt")


def mutate(folder: Path, rng: np.random.Generator) -> tuple[str, bytes, str]:
    """Damages bytes; an archive's parts, under checksums that fit; or values, sealed again or not."""
    import torch

    from bnn_itrd.training.checkpoint import save_checkpoint

    sealed, plain = folder / "run/recu/last.pt", folder / "plain.pt"
    how = str(rng.choice(["bytes", "bytes", "plain bytes", "archive", "values", "values"]))
    if how == "archive":
        return "last.pt", mutate_archive(plain.read_bytes(), rng), how
    if how != "values":
        return "last.pt", mutate_bytes((sealed if how == "bytes" else plain).read_bytes(), rng), how
    tree = mutate_tree(torch.load(plain, weights_only=True), rng)
    if isinstance(tree, dict) and "format" in tree and rng.random() < 0.5:
        save_checkpoint(folder / "values.pt", tree)
        return "last.pt", (folder / "values.pt").read_bytes(), how
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return "last.pt", buffer.getvalue(), how


def open_checkpoint(path: Path, folder: Path, how: str, number: int) -> str:
    """Reads it, describes its network, and now and then continues the training from it."""
    from bnn_itrd.errors import UserError
    from bnn_itrd.training.checkpoint import load_checkpoint

    if number % _SELDOM == 0:
        out = path.with_suffix(".run")
        shutil.copytree(folder / "run", out)
        shutil.copy(path, out / "recu/last.pt")
        try:
            run_command(*_train(folder, out))
        finally:
            shutil.rmtree(out)
    status, _ = run_command("summary", path)
    try:
        state = load_checkpoint(path)
    except UserError:
        return REFUSED
    if how in ("bytes", "plain bytes") and not same_state(state, load_checkpoint(folder / "plain.pt")):
        raise Silent("a changed checkpoint was read as another")
    return OPENED if status == 0 else REFUSED
