"""Networks: one builder makes a teacher or its binary student."""

import lazy_loader

# __init__.pyi lists the names; zoo.py those of the command line.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
