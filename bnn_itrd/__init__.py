"""bnn_itrd distils a full-precision vision network into a binary one, and exports that to files that it validates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Distilled", "__version__", "distill", "load"]

if TYPE_CHECKING:
    from bnn_itrd.api import Distilled, distill, load


def __getattr__(name: str) -> Any:
    # torch, lightning and onnx are imported when a function is first used, so that `import bnn_itrd` is fast.
    if name in ("Distilled", "distill", "load"):
        from bnn_itrd import api

        return getattr(api, name)
    raise AttributeError(f"module 'bnn_itrd' has no attribute {name!r}")
