"""The choice of how a training step runs: replayed as CUDA graphs, compiled, or in eager mode."""

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

# "default" is torch.compile's own mode, "eager" the step without torch.compile.
Form = Literal["reduce-overhead", "max-autotune", "default", "eager"]

# The number of steps in which a form can still fail: in the first, forward and backward are compiled and CUDA graphs
# warm up; in the second they are recorded, in the third replayed.
_TRIAL_STEPS = 3

_IN_WORDS: dict[Form, str] = {
    "reduce-overhead": "replayed as CUDA graphs",
    "max-autotune": "compiled with max-autotune",
    "default": "compiled",
    "eager": "as it is written, without torch.compile",
}


def forms(config: TrainConfig, *, device: str, processes: int) -> tuple[Form, ...]:
    """Returns the forms in which a step is tried, in this order, until one works.

    A mode that the configuration names is the only one. ``auto`` tries CUDA graphs on a CUDA device, since a GPU ends
    most steps before the CPU has launched their kernels; then compiling without them; then eager mode. With several
    processes, which must all run the same code, it only compiles.

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
        why = "train.fused_kernels needs Triton, which is not installed: pip install triton, or set false"
        raise UserError(why) from error


class CompiledForms:
    """Tries the forms of a step in turn; the first that works is kept.

    >>> tried = CompiledForms(("default", "eager"))
    >>> tried.form, tried.on_trial
    ('default', True)
    >>> print(tried.give_up(RuntimeError("no compiler")))
    a step that is compiled failed (RuntimeError: no compiler): it runs as it is written, without torch.compile
    >>> tried.form, tried.on_trial
    ('eager', False)
    """

    def __init__(self, forms: tuple[Form, ...]) -> None:
        self._left = list(forms)
        self._worked = 0

    @property
    def form(self) -> Form:
        return self._left[0]

    @property
    def uses_cuda_graphs(self) -> bool:
        return self.form in ("reduce-overhead", "max-autotune")

    @property
    def on_trial(self) -> bool:
        """Whether the form could still fail and there is another one to try."""
        return len(self._left) > 1 and self._worked < _TRIAL_STEPS

    def apply(self, module: nn.Module) -> nn.Module:
        """Returns the module in the current form.

        Compiled code of earlier trainings in this process is dropped first: torch keeps eight versions of a function,
        and the step of a ninth network would run uncompiled.
        """
        if self.form == "eager":
            return module
        torch.compiler.reset()
        mode = None if self.form == "default" else self.form
        return torch.compile(module, mode=mode)  # type: ignore[return-value]

    def begin(self) -> None:
        """Puts the form on trial again, for steps of another kind, which are compiled again."""
        self._worked = 0

    def worked(self) -> None:
        """Counts a step that succeeded."""
        self._worked += 1

    def give_up(self, error: Exception) -> str:
        """Changes to the next form and returns a line about it; there must be a next form (`on_trial`)."""
        failed = self._left.pop(0)
        self._worked = 0
        torch.compiler.reset()  # frees the memory of the CUDA graphs
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        why = f"{type(error).__name__}: {reason}"
        return f"a step that is {_IN_WORDS[failed]} failed ({why}): it runs {_IN_WORDS[self.form]}"


@dataclass(frozen=True)
class StepState:
    """The state that a forward pass changes: buffers (running statistics, banks of features) and random generators."""

    buffers: tuple[Tensor, ...]
    random: Tensor
    cuda_random: Tensor | None

    @classmethod
    def of(cls, module: nn.Module, device: torch.device) -> StepState:
        """Returns a copy of the module's state."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(tuple(b.clone() for b in module.buffers()), torch.get_rng_state(), cuda)

    @torch.no_grad()
    def restore(self, module: nn.Module, device: torch.device) -> None:
        """Restores the state and removes all gradients, as if the step had not been tried."""
        for buffer, kept in zip(module.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        torch.set_rng_state(self.random)
        if self.cuda_random is not None:
            torch.cuda.set_rng_state(self.cuda_random, device)
        for parameter in module.parameters():
            parameter.grad = None
