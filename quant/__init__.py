"""This package makes networks binary: rules for weights and activations, layers that use them, and `binarize`."""

import lazy_loader

# __init__.pyi lists the names. They load lazily because configurations import `quant.options`, which needs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
