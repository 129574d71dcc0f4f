"""This package has the distillation losses, which take tensors and return a scalar; `__init__.pyi` lists them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
