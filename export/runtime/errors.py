"""The exceptions that are raised by the exporters and by the functions that run exported files."""

from __future__ import annotations

__all__ = ["ExportError", "ImageError"]


class ExportError(RuntimeError):
    """Raised for a network that cannot be exported, or for an exported file that cannot be used.

    The message says in which layer or file the fault is, and what to do.

    >>> raise ExportError("conv1: its weights must be constants")
    Traceback (most recent call last):
    bnn_itrd.export.runtime.errors.ExportError: conv1: its weights must be constants
    """


class ImageError(ValueError):
    """Raised for an image file that cannot be read, or whose size does not fit the exported file.

    The message names the image and the reason.

    >>> issubclass(ImageError, ValueError)
    True
    """
