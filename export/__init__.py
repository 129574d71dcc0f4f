"""Exporters that write a network as a file, compare the file with the network, and run and time the file.

`__init__.pyi` lists the public names. Each is imported when it is first used, so a program that only runs exported
files does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
