"""Section "Validation": the exported files, whether they give the network's answers, and how each is used."""

from bnn_itrd.report.files.validation import validation_section

__all__ = ["validation_section"]
