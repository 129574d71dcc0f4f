"""Section "Validation": the exported files, their agreement with the network, and how to use them."""

from bnn_itrd.report.files.validation import validation_section

__all__ = ["validation_section"]
