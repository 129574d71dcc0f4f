"""From a student's and a teacher's `Outputs` to a term of the loss: which part of them each loss is shown."""

import lazy_loader

# Nothing below is imported before it is asked for: what the methods are (METHODS) loads without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
