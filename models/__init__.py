"""This package has the networks; the same function builds a full-precision teacher or its binary student."""

import lazy_loader

# __init__.pyi lists the public names; zoo.py has the networks' names on the command line.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
