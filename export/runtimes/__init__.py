"""Programs that run exported files, each in a separate virtual environment because their requirements may conflict.

`setup` makes such an environment, `find` returns its interpreter, and `call` runs a script in it.
"""

from bnn_itrd.export.runtimes.environments import RUNTIMES, Runtime, call, find, folder, setup

__all__ = ["RUNTIMES", "Runtime", "call", "find", "folder", "setup"]
