"""Chooses how a training step runs: replayed as CUDA graphs, compiled by torch.compile, or in eager mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_itrd.config.train import TrainConfig
from bnn_itrd.errors import UserError
from bnn_itrd.quant import set_fused

__all__ = ["CompiledForms", "StepState", "forms", "use_fused_kernels"]

# How a step runs: in a mode of torch.compile ("default" is its default mode), or without torch.compile ("eager").
Form = Literal["reduce-overhead", "max-autotune", "default", "eager"]

# The number of first steps in which a form may fail. In the first, forward and backward are compiled, and CUDA graphs
# warm up; in the second they are recorded, and in the third replayed.
_TRIAL_STEPS = 3

_IN_WORDS: dict[Form, str] = {
    "reduce-overhead": "replayed as CUDA graphs",
    "max-autotune": "compiled with max-autotune",
    "default": "compiled",
    "eager": "as it is written, without torch.compile",
}


def forms(config: TrainConfig, *, device: str, processes: int) -> tuple[Form, ...]:
    """Returns the ways to run a training step that are tried, in this order, until one works.

    If the configuration names a mode of torch.compile, it is the only one. Otherwise (``auto``) CUDA graphs come first
    on a CUDA device, because a GPU would wait for the CPU to launch its kernels; then compilation without CUDA graphs,
    then eager mode. With several processes a step is only compiled, because all must run the same code.

    >>> forms(TrainConfig(compile=True), device="cuda", processes=1)
    ('reduce-overhead', 'default', 'eager')
    >>> forms(TrainConfig(compile=True), device="cpu", processes=2)
    ('default',)
    >>> forms(TrainConfig(), device="cuda", processes=1)
    ('eager',)
    """
    if not config.compile:
        return ("eager",)
    if config.compile_mode != "auto":
        return (config.compile_mode or "default",)
    if processes > 1:
        return ("default",)
    return ("reduce-overhead", "default", "eager") if device == "cuda" else ("default", "eager")


def use_fused_kernels(
    student: nn.Module, config: TrainConfig, *, device: str, say: Callable[[str], object] = print
) -> None:
    """Switches a student's ReCU to the kernels of `bnn_itrd.quant.kernels` if the configuration asks for them.

    They run on CUDA devices. On another device ReCU is computed without them, and `say` is called with a line that
    says so. Raises UserError if Triton is not installed.

    >>> from bnn_itrd.quant import BinaryConv2d
    >>> use_fused_kernels(BinaryConv2d(1, 1, 1), TrainConfig(fused_kernels=True), device="cpu")
    train.fused_kernels has no effect on cpu: ReCU is computed as without it
    """
    have = set_fused(student, False)
    if not config.fused_kernels or not have:
        return
    if device != "cuda":
        say(f"train.fused_kernels has no effect on {device}: ReCU is computed as without it")
        return
    try:
        set_fused(student, True)
    except ImportError as error:
        why = "train.fused_kernels needs Triton, which is not installed: pip install triton, or set it to false"
        raise UserError(why) from error


class CompiledForms:
    """Tries ways to run a training step one after the other, and keeps the first that works.

    Such a way, a form, is a mode of torch.compile, or "eager". If a form fails in its first steps, the next one is
    used; it is called "on trial" in these steps. The last form is never on trial.

    >>> tried = CompiledForms(("default", "eager"))
    >>> tried.form, tried.on_trial
    ('default', True)
    >>> print(tried.give_up(RuntimeError("no compiler")))
    a training step, compiled, failed (RuntimeError: no compiler): it now runs as it is written, without torch.compile
    >>> tried.form, tried.on_trial
    ('eager', False)
    """

    def __init__(self, forms: tuple[Form, ...]) -> None:
        self._left = list(forms)
        self._worked = 0

    @property
    def form(self) -> Form:
        """The current way of running a step: a mode of torch.compile, or "eager"."""
        return self._left[0]

    @property
    def uses_cuda_graphs(self) -> bool:
        return self.form in ("reduce-overhead", "max-autotune")

    @property
    def on_trial(self) -> bool:
        """Whether the current way of running a step is in its first steps, and another one is left if it fails."""
        return len(self._left) > 1 and self._worked < _TRIAL_STEPS

    def apply(self, module: nn.Module) -> nn.Module:
        """Returns the module compiled in the current mode, or the module itself in eager mode.

        Compiled code of earlier trainings is dropped first, because torch keeps only eight versions of a function: the
        step of a ninth network in this process would run uncompiled.
        """
        if self.form == "eager":
            return module
        torch.compiler.reset()
        mode = None if self.form == "default" else self.form
        return torch.compile(module, mode=mode)  # type: ignore[return-value]

    def begin(self) -> None:
        """Lets the next steps count as first steps again, which may fail; called before other code is compiled."""
        self._worked = 0

    def worked(self) -> None:
        """Counts a step that succeeded."""
        self._worked += 1

    def give_up(self, error: Exception) -> str:
        """Changes to the next way of running a step, because of an error, and returns a line of output about it.

        There must be a next one, as `on_trial` says.
        """
        failed = self._left.pop(0)
        self._worked = 0
        torch.compiler.reset()  # frees the memory of the CUDA graphs
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        why = f"{type(error).__name__}: {reason}"
        return f"a training step, {_IN_WORDS[failed]}, failed ({why}): it now runs {_IN_WORDS[self.form]}"


@dataclass(frozen=True)
class StepState:
    """A copy of what a forward pass changes, to repeat a step that failed: buffers and the states of random generators.

    Buffers are, for instance, a BatchNorm's running statistics.
    """

    buffers: tuple[Tensor, ...]
    random: Tensor
    cuda_random: Tensor | None

    @classmethod
    def of(cls, module: nn.Module, device: torch.device) -> StepState:
        """Returns a copy of a module's buffers and of the states of the random generators of CPU and device."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(tuple(b.clone() for b in module.buffers()), torch.get_rng_state(), cuda)

    @torch.no_grad()
    def restore(self, module: nn.Module, device: torch.device) -> None:
        """Restores the buffers and random generators and removes all gradients, as if the step had not been tried."""
        for buffer, kept in zip(module.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        torch.set_rng_state(self.random)
        if self.cuda_random is not None:
            torch.cuda.set_rng_state(self.cuda_random, device)
        for parameter in module.parameters():
            parameter.grad = None
