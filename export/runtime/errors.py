"""What the exporters raise."""

from __future__ import annotations

__all__ = ["ExportError"]


class ExportError(RuntimeError):
    """A network that cannot be exported, or a file that cannot be used: which part, and what to do."""
