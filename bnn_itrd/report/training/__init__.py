"""What the section "Training" has beside its curves."""

from bnn_itrd.report.training.watched import watched_details

__all__ = ["watched_details"]
