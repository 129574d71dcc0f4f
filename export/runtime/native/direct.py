"""Calls the native library's kernels directly, without onnxruntime, for tests, sanitizers and benchmarks."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import library_path, why_unavailable

__all__ = ["KERNELS", "DirectConvolution", "direct_signs", "load_library"]

# The names of all kernels; a processor can run some of them.
KERNELS = ("portable", "avx2", "avx512", "neon")


def load_library(path: Path | None = None) -> ctypes.CDLL:
    """Loads the native library at `path`, or the installed one, for the other functions of this module.

    Raises ValueError, with the reason, if no library can be used.

    >>> load_library().bnn_itrd_format()  # doctest: +SKIP
    3
    """
    file = path or library_path()
    if file is None:
        raise ValueError(why_unavailable())
    library = ctypes.CDLL(str(file))
    library.bnn_itrd_create.restype = ctypes.c_void_p
    library.bnn_itrd_run.restype = library.bnn_itrd_signs.restype = ctypes.c_int
    return library


def _pointer(array: np.ndarray | None) -> ctypes.c_void_p | None:
    """Returns the address of an array's data as a C pointer; None becomes a null pointer."""
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


class _Message:
    """A buffer for the error message of one of the library's C functions; `arguments` are that function's last two."""

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(1024)
        self.arguments = (self.buffer, ctypes.c_int64(len(self.buffer)))

    def error(self) -> ValueError:
        """Returns an exception with the message."""
        return ValueError(self.buffer.value.decode())


def aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Returns an array of zeros whose memory begins at a cache line (64 bytes), as onnxruntime's buffers do.

    >>> aligned((2, 3), np.float32).ctypes.data % 64
    0
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


class DirectConvolution:
    """A binary convolution that one kernel of the native library computes; calling it runs it.

    What it returns depends on its constants, which have a number for each of the o output channels:

    - with none, the sums of the products of +1 and -1;
    - with threshold, int32, signs: +1 where a sum is at least its threshold;
    - with scale and bias, float32, y = sum * scale + bias, and the signs of y: +1 where y is at least level, or 0.

    Before the signs are taken, y can get a residual (add), a clip to limits (low, high), and ReActNet's RPReLU (rprelu:
    before, slope and after).
    kernel: one of KERNELS, each the code for one instruction set; weights: signs packed to bits, uint8 (kh, kw,
    ceil(i / 8), o), with i the input channels of a group; padding_value: -1, 0 or 1; the others are as in ONNX.
    Raises ValueError if the library refuses an argument, or if the processor cannot run the kernel.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        kernel: str,
        weights: np.ndarray,
        *,
        channels: int,
        group: int = 1,
        padding_value: int = 0,
        strides: Sequence[int] = (1, 1),
        dilations: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0, 0, 0),
        threshold: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        add: bool = False,
        limits: tuple[float, float] | None = None,
        rprelu: Sequence[np.ndarray] | None = None,
        level: np.ndarray | None = None,
    ) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = None
        self._kind = 1 if threshold is not None else 2 if scale is not None else 0
        self.outputs = weights.shape[3]
        weights = np.ascontiguousarray(weights)
        attributes = [channels, group, padding_value, *weights.shape[:2], *strides, *dilations, *pads]
        flags = [self._kind, add, limits is not None, rprelu is not None, self._kind == 2]
        floats = [_pointer(array) for array in (scale, bias, *((None,) * 3 if rprelu is None else rprelu), level)]
        message = _Message()
        handle = library.bnn_itrd_create(
            kernel.encode(),
            _pointer(np.array(attributes, np.int64)),
            _pointer(np.array(flags, np.int32)),
            _pointer(np.array(limits or (0, 0), np.float32)),
            _pointer(weights),
            _pointer(np.array(weights.shape, np.int64)),
            _pointer(threshold),
            (ctypes.c_void_p * len(floats))(*floats),
            *message.arguments,
        )
        if not handle:
            raise message.error()
        self._handle = ctypes.c_void_p(handle)

    def __del__(self) -> None:
        if self._handle is not None:
            self._library.bnn_itrd_destroy(self._handle)
            self._handle = None

    def __call__(
        self, signs: np.ndarray, residual: np.ndarray | None = None, *, repeats: int = 1
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Runs the convolution `repeats` times; returns (outputs by name, seconds of each run).

        signs: packed to bits, uint8 (n, h, w, ceil(c / 8)); residual: float32 (n, h', w', o), if there is one. The
        outputs are, as the constants say, "raw" (the sums, int32) and "y" (float32), both (n, h', w', o), and "signs",
        uint8 (n, h', w', ceil(o / 8)). Raises ValueError if the library refuses the size of the images.
        """
        shape, message, sides = np.array(signs.shape[:3], np.int64), _Message(), np.zeros(2, np.int64)
        if self._library.bnn_itrd_output_size(self._handle, _pointer(shape), _pointer(sides), *message.arguments):
            raise message.error()
        pixels = (signs.shape[0], *(int(side) for side in sides))
        outputs: dict[str, np.ndarray] = {}
        if self._kind == 0:
            outputs["raw"] = aligned((*pixels, self.outputs), np.int32)
        if self._kind == 2:
            outputs["y"] = aligned((*pixels, self.outputs), np.float32)
        if self._kind > 0:
            outputs["signs"] = aligned((*pixels, -(-self.outputs // 8)), np.uint8)
        seconds = np.zeros(repeats)
        failed = self._library.bnn_itrd_run(
            self._handle,
            _pointer(np.ascontiguousarray(signs)),
            _pointer(shape),
            _pointer(residual),
            *(_pointer(outputs.get(name)) for name in ("y", "signs", "raw")),
            ctypes.c_int64(repeats),
            _pointer(seconds),
            *message.arguments,
        )
        if failed:
            raise message.error()
        return outputs, seconds


def direct_signs(library: ctypes.CDLL, kernel: str, x: np.ndarray, level: np.ndarray | None = None) -> np.ndarray:
    """Returns the signs of x, float32 (..., c), packed to bits by one kernel, uint8 (..., ceil(c / 8)).

    Bit k of byte b is 1 where x[..., 8 b + k] >= 0 or, with level, float32 (c,), where it is >= level[8 b + k].
    Raises ValueError if the processor cannot run the kernel.

    >>> library = load_library()  # doctest: +SKIP
    >>> direct_signs(library, "portable", np.array([[1, -1, 0]], np.float32)).tolist()  # doctest: +SKIP
    [[5]]
    """
    x, message = np.ascontiguousarray(x), _Message()
    signs = np.empty((*x.shape[:-1], -(-x.shape[-1] // 8)), np.uint8)
    pixels = ctypes.c_int64(x.size // x.shape[-1])
    channels = ctypes.c_int64(x.shape[-1])
    given = (_pointer(x), _pointer(level), pixels, channels, _pointer(signs))
    if library.bnn_itrd_signs(kernel.encode(), *given, *message.arguments):
        raise message.error()
    return signs
