"""Images by name, in folders, or a user's own: splits that yield batches."""

from bnn_itrd.data.datasets import DATASETS, load_data
from bnn_itrd.data.splits import UNLABELLED, Batch, ImageData, Split, TensorSplit

__all__ = ["DATASETS", "UNLABELLED", "Batch", "ImageData", "Split", "TensorSplit", "load_data"]
