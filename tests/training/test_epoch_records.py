"""An epoch reads nothing from the device before its end; moving averages and flipped signs are recorded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_npz
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bnn_itrd.config import DistillConfig, ITRDConfig, KDConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.models import resnet8
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.optimizer import MovingAverage
from bnn_itrd.training.trainer import Trainer

CPU = FabricConfig(accelerator="cpu", threads=1)


class _Reads(TorchDispatchMode):
    """Counts what would make the host wait for a device: values and sizes that are read from tensors."""

    WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rpartition(".")[0]
        if name in self.WAITS:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def trainer_of(npz: Path, **train: Any) -> tuple[Trainer, Any]:
    data = load_data(DataConfig(name="cifar10", root=str(npz)))
    torch.manual_seed(0)
    shape = data.input_shape
    teacher, student = resnet8(3, input_shape=shape).eval(), resnet8(3, input_shape=shape, binary="recu")
    config = TrainConfig(epochs=4, batch_size=16, warmup_epochs=0, **train)
    distill = DistillConfig(ce=0.1, kd=KDConfig(warmup_epochs=1.0), itrd=ITRDConfig())
    fabric = make_fabric(CPU, precision=config.precision)
    return Trainer(student, teacher, input_shape=shape, train=config, distill=distill, fabric=fabric), data


def test_an_epoch_reads_nothing_from_the_device_before_its_end(tmp_path: Path) -> None:
    """The number of reads does not grow with the steps: 2 steps and 6, with a moving average and scheduled weights."""
    from bnn_itrd.training.progress import Progress

    counts = []
    for n in (32, 96):
        trainer, data = trainer_of(write_npz(tmp_path / f"{n}.npz", n=n), ema=0.9, channels_last=True)
        quiet = Progress("", epochs=4, steps=n // 16, names=(), batch_size=16, enabled=False, live=False)
        with _Reads() as reads:
            trainer.train_epoch(data, quiet)
        # The count of the average's updates lies on the CPU, whatever the device.
        assert trainer.ema is not None and trainer.ema.n_averaged.device.type == "cpu"
        assert int(trainer.ema.n_averaged) == n // 16
        counts.append(dict(reads.count))
        trainer.objective.release()
    with _Reads() as reads:
        torch.ones(()).item()
    assert reads.count["aten._local_scalar_dense"] == 1
    per_update = {k: (counts[1].get(k, 0) - counts[0].get(k, 0)) / 4 for k in counts[1]}
    # One read a step: that of the count on the CPU.
    assert all(v <= 1 for v in per_update.values()), (counts, per_update)


def test_moving_average_is_the_closed_form() -> None:
    """a_0 = w_0, a_t = d a_(t-1) + (1 - d) w_t, buffers too; whole numbers are the network's."""
    decay = 0.75
    net = nn.BatchNorm1d(2).double()
    average = MovingAverage(net, decay)
    want: dict[str, np.ndarray] = {}
    for t in range(4):
        with torch.no_grad():
            net.weight.copy_(torch.tensor([1.0 + t, 2.0 * t * t]))
            net.running_mean.copy_(torch.tensor([5.0 - t, 0.5 * t]))  # type: ignore[union-attr]
            net.num_batches_tracked.fill_(10 + t)  # type: ignore[operator, union-attr]
        average.update_parameters(net)
        for name in ("weight", "running_mean"):
            new = getattr(net, name).detach().numpy().copy()
            want[name] = new if t == 0 else decay * want[name] + (1 - decay) * new
    for name, value in want.items():
        np.testing.assert_allclose(getattr(average.module, name).detach().numpy(), value, rtol=1e-14)
    assert int(average.module.num_batches_tracked) == 13 and int(average.n_averaged) == 4


def test_sign_flips_are_recorded(tiny_npz: Path) -> None:
    """Against ReCU's sign(w - mean of its filter) in NumPy, from the weights before and after each epoch."""
    from bnn_itrd.training.progress import Progress

    trainer, data = trainer_of(tiny_npz, lr=0.3)
    quiet = Progress("", epochs=4, steps=6, names=(), batch_size=16, enabled=False, live=False)

    def positive() -> np.ndarray:
        rows = []
        for layer in trainer.student.modules():
            if isinstance(layer, BinaryConv2d):
                w = layer.weight.detach().double().numpy()
                rows.append((w >= w.mean((1, 2, 3), keepdims=True)).ravel())
        return np.concatenate(rows)

    for _ in range(2):
        before = positive()
        row = trainer.train_epoch(data, quiet)
        changed = 100 * np.mean(before != positive())
        # Float32 may put a weight at its filter's mean on the other side.
        assert changed > 0.1 and row["sign_flips"] == pytest.approx(changed, abs=0.01)
    trainer.objective.release()
