"""Binarisation: sign with surrogate gradients, binarisers, binary layers, rewriting of a whole network."""

import lazy_loader

# The names stand in __init__.pyi. Light on purpose: configurations read `quant.options`, and need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
