"""Distillers: losses that compare the outputs of a student network with those of its teacher."""

import lazy_loader

# The names load lazily, because the table of the methods (METHODS) is needed without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
