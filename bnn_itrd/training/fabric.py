"""Sets up Lightning Fabric, which manages the device, the processes and the precision of a training."""

from __future__ import annotations

import atexit

import torch
import torch.distributed
from lightning.fabric import Fabric

from bnn_itrd.config.train import FabricConfig, TrainConfig
from bnn_itrd.errors import UserError
from bnn_itrd.training.threads import cpu_quota, set_threads
from bnn_itrd.words import counted

__all__ = ["make_fabric", "reset_loss_scale", "steps_in_epoch"]


def make_fabric(config: FabricConfig, *, precision: str = "32-true") -> Fabric:
    """Makes and launches the Fabric of a command, which manages device, processes and precision, and returns it.

    With several processes, each of them runs the rest of the command. It also sets torch's number of threads.
    Raises UserError if the device, the strategy or the precision is not possible on this machine.
    """
    fewer = set_threads(config.threads, processes=config.devices, quota=cpu_quota())
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=precision,  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError, ImportError) as error:  # ImportError: an accelerator's library is not installed
        raise UserError(f"fabric: the device, strategy or number of processes is not possible here: {error}") from error
    except Exception as error:  # Lightning's MisconfigurationException has no public base class
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise UserError(f"fabric: the device, strategy or number of processes is not possible here: {error}") from error
    if (have := fabric.strategy.precision.precision) != precision:  # fp16 becomes bf16 on a CPU, with a warning
        raise UserError(f"precision {precision} is not possible on this device ({fabric.device.type}): use {have}")
    if fabric.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # batches have one shape
    fabric.launch()
    if fewer is not None:
        fabric.print(fewer)
    if fabric.world_size > 1:
        atexit.register(_leave)
        launched = getattr(fabric.strategy.launcher, "procs", None)
        if launched:
            # Otherwise Lightning kills this process without a message, up to five seconds after another one has failed.
            launched.clear()
    return fabric


def reset_loss_scale(fabric: Fabric) -> None:
    """Resets the loss scale of float16 training, because one Fabric is used for several trainings in a row."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None and scaler.is_enabled():
        scaler.load_state_dict(torch.amp.GradScaler(fabric.device.type).state_dict())


def _leave() -> None:
    """Closes the process group at exit, because gloo's threads may otherwise abort the process at its end."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def steps_in_epoch(train: TrainConfig, images: int, processes: int, *, field: str = "train") -> int:
    """Returns the number of steps in an epoch, which is the number of full batches in `images` images.

    Raises UserError if a batch is larger than the data, or if it cannot be divided evenly among the processes. `field`
    is the name of the configuration's part in the message.

    >>> steps_in_epoch(TrainConfig(batch_size=32), 100, 1)
    3
    """
    size = train.batch_size
    if size > images:
        raise UserError(
            f"{field}.batch_size {size} is larger than the {counted(images, 'training image')}: give a smaller one"
        )
    if size % processes:
        raise UserError(f"{field}.batch_size {size} must be a multiple of the number of processes, {processes}")
    return images // size
