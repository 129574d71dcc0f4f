"""Data sets of images, by name, from folders, or a user's own; their splits yield batches."""

from bnn_itrd.data.batches import UNLABELLED, Batch
from bnn_itrd.data.datasets import DATASETS, as_image_data, load_data
from bnn_itrd.data.splits import ImageData, Split
from bnn_itrd.data.tensor_split import TensorSplit

__all__ = ["DATASETS", "UNLABELLED", "Batch", "ImageData", "Split", "TensorSplit", "as_image_data", "load_data"]
