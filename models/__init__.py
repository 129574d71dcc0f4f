"""Networks: one builder makes a teacher or its binary student."""

import lazy_loader

# The names stand in __init__.pyi, those of the command line in zoo.py.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
