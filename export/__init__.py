"""The exporters: they write a network as a file, compare the file with the network, and run and time it.

A name is imported when it is first used (`__init__.pyi` lists them), so code that only runs files imports no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
