"""The report's section "Validation": the exported files, how well they agree with PyTorch, and how to use them."""

from bnn_itrd.report.files.validation import validation_section

__all__ = ["validation_section"]
