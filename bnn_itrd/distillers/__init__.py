"""Distillers, which compute a term of the loss from the `Outputs` of a student and a teacher."""

import lazy_loader

# The names load lazily, since the table of the methods (METHODS) is needed without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
