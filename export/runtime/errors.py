"""The exceptions that the exporters, and the functions that run exported files, raise."""

from __future__ import annotations

__all__ = ["ExportError", "ImageError"]


class ExportError(RuntimeError):
    """Raised on a network that cannot be exported, or a file that cannot be used; it says where and what to do.

    >>> raise ExportError("conv1: its weights must be constants")
    Traceback (most recent call last):
    bnn_itrd.export.runtime.errors.ExportError: conv1: its weights must be constants
    """


class ImageError(ValueError):
    """Raised on an image that cannot be read, or does not fit the exported file; it names the image and says why.

    >>> issubclass(ImageError, ValueError)
    True
    """
