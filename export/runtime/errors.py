"""What the exporters, and what runs their files, raise."""

from __future__ import annotations

__all__ = ["ExportError", "ImageError"]


class ExportError(RuntimeError):
    """A network that cannot be exported, or a file that cannot be used: which part, and what to do."""


class ImageError(ValueError):
    """An image that cannot be read, or is not what a file takes: which, and why."""
