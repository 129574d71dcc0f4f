"""Lightning Fabric, which sets up devices, processes and precision."""

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
    """Returns the Fabric of a command, launched: with several processes, each runs the command from here on.

    Raises UserError if the device, strategy or precision is not possible here.
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
        raise UserError(f"fabric: {error}") from error
    except Exception as error:  # lightning raises its own MisconfigurationException, which has no public base
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise UserError(f"fabric: {error}") from error
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
            # Lightning would kill this process, without a message, within five seconds after another one fails.
            launched.clear()
    return fabric


def reset_loss_scale(fabric: Fabric) -> None:
    """Resets the Fabric's loss scaling, since one Fabric runs several trainings one after the other."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None and scaler.is_enabled():
        scaler.load_state_dict(torch.amp.GradScaler(fabric.device.type).state_dict())


def _leave() -> None:
    """Closes the process group; otherwise gloo's threads may abort the process while the interpreter ends."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def steps_in_epoch(train: TrainConfig, images: int, processes: int, *, field: str = "train") -> int:
    """Returns the number of full batches in so many images. Raises UserError, naming the field, if it is 0.

    A batch must also be a multiple of the processes.

    >>> steps_in_epoch(TrainConfig(batch_size=32), 100, 1)
    3
    """
    size = train.batch_size
    if size > images:
        raise UserError(f"{field}.batch_size {size} is larger than the {counted(images, 'training image')}")
    if size % processes:
        raise UserError(f"{field}.batch_size {size} must be a multiple of the {processes} processes")
    return images // size
