"""From a network to a file that is proven to run: canonical graph, portable ONNX, validation, timing.

A name is imported when it is first used (`__init__.pyi` lists them), so what only runs a file imports no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
