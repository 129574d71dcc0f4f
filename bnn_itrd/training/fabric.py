"""Lightning Fabric: devices, processes and precision; what becomes of a process that has lost another one."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed
from lightning.fabric import Fabric

from bnn_itrd.config.train import FabricConfig, TrainConfig
from bnn_itrd.console import say_at_the_end
from bnn_itrd.errors import LostProcess, UserError
from bnn_itrd.training.threads import cpu_quota, set_threads
from bnn_itrd.training.writer import write_waiting

__all__ = ["ending_together", "make_fabric", "reset_loss_scale", "steps_in_epoch"]

# How long the main thread has to notice by itself that a process is lost (gloo says so at once, NCCL in ten minutes).
_PATIENCE = 3.0  # seconds
# What the last finished epoch may take to be written then.
_GRACE = 20.0


def make_fabric(config: FabricConfig, *, precision: str = "32-true") -> Fabric:
    """The one Fabric of a command, launched: with several processes, each of them runs the command from here on."""
    fewer = set_threads(config.threads, processes=config.devices, quota=cpu_quota())
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=precision,  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError, ImportError) as error:  # of an accelerator whose library is not installed
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
            # Lightning kills this process where one of them fails, within five seconds and without a word.
            launched.clear()
    return fabric


def reset_loss_scale(fabric: Fabric) -> None:
    """Gives the Fabric's loss scaling its first value: one Fabric serves several trainings, one after the other."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    if scaler is not None and scaler.is_enabled():
        scaler.load_state_dict(torch.amp.GradScaler(fabric.device.type).state_dict())


def _leave() -> None:
    """Closes the process group: left to the interpreter's last moments, gloo's threads may abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def ending_together(fabric: Fabric) -> Iterator[None]:
    """Within it a process ends where another one of the same training has ended: it cannot go on alone.

    Epochs that are finished are written before. Processes of this machine are watched (on Linux), those of others are
    missed by the communication with them. Raises LostProcess; a process that stands in a communication which does not
    notice ends with its message and its status.
    """
    if fabric.world_size == 1:
        yield
        return
    watch = _Watch()
    try:
        watch.begin(_others(fabric))
        yield
        fabric.barrier()
    except RuntimeError as error:
        if not _of_communication(error):
            raise
        # The connection breaks a moment before the system has buried the process.
        watch.found.wait(_PATIENCE if watch.watches else 0)
        raise LostProcess(watch.who) from error
    finally:
        watch.close()


@dataclass(frozen=True)
class _Process:
    rank: int
    world: int
    host: str
    pid: int
    numbering: str  # of the start of a system, and of the container in it, in which that is its pid

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world} (pid {self.pid} on {self.host})"


def _others(fabric: Fabric) -> list[_Process]:
    """The other processes of the training that run on this machine."""
    # Hosts may have one name ("localhost"), and the numbers of their first namespaces are the same.
    numbering = ""
    with contextlib.suppress(OSError):  # not Linux
        numbering = f"{Path('/proc/sys/kernel/random/boot_id').read_text()}{os.stat('/proc/self/ns/pid').st_ino}"
    own = _Process(fabric.global_rank, fabric.world_size, socket.gethostname(), os.getpid(), numbering)
    every: list[_Process] = [own] * fabric.world_size
    torch.distributed.all_gather_object(every, own)
    here = [p for p in every if own.numbering and (p.host, p.numbering) == (own.host, own.numbering)]
    return [p for p in here if p.rank != own.rank]


def _of_communication(error: RuntimeError) -> bool:
    """Whether an error is one of the processes' communication: gloo has no class of its own for its errors."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()


class _Watch:
    """A thread that waits for the end of other processes, and ends this one where its main thread does not."""

    def __init__(self) -> None:
        self.who = "another process of this training"
        self.found, self._over = threading.Event(), threading.Event()
        self._handles: dict[int, _Process] = {}
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self, others: list[_Process]) -> None:
        """Watches these processes from here on, where it can."""
        if hasattr(os, "pidfd_open"):  # Linux
            for process in others:
                with contextlib.suppress(OSError):  # it is gone already: the communication says so
                    self._handles[os.pidfd_open(process.pid)] = process
        if self.watches:
            self._thread.start()

    @property
    def watches(self) -> bool:
        """Whether there is a process to be watched."""
        return bool(self._handles)

    def close(self) -> None:
        """Ends the watch."""
        self._over.set()
        os.close(self._writer)
        if self.watches:
            self._thread.join()
        for handle in (self._reader, *self._handles):
            os.close(handle)

    def _run(self) -> None:
        poll = select.poll()
        for handle in (self._reader, *self._handles):
            poll.register(handle)
        gone = [handle for handle, _ in poll.poll() if handle != self._reader]
        if not gone:
            return
        self.who = str(self._handles[gone[0]])
        self.found.set()
        if self._over.wait(_PATIENCE):
            return
        saving = threading.Thread(target=_save, daemon=True)
        saving.start()
        saving.join(_GRACE)
        if not self._over.is_set():
            lost = LostProcess(self.who)
            say_at_the_end(f"bnn-itrd: {lost}")
            os._exit(lost.status)


def _save() -> None:
    with contextlib.suppress(Exception):  # a full disk, say: the last checkpoint stays as it was
        write_waiting()


def steps_in_epoch(train: TrainConfig, images: int, processes: int, *, field: str = "train") -> int:
    """Full batches in a pass over so many images. Raises UserError, naming the field, where they cannot be made."""
    size = train.batch_size
    if size > images:
        raise UserError(f"{field}.batch_size {size} is larger than the {images} training images")
    if size % processes:
        raise UserError(f"{field}.batch_size {size} must be a multiple of the {processes} processes")
    return images // size
