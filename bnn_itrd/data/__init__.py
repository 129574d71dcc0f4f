"""Data sets of images: published ones by name, folders of images, and the user's own Datasets.

Each is an `ImageData`, whose splits (training, held-out and test images) yield batches.
"""

from bnn_itrd.data.batches import UNLABELLED, Batch
from bnn_itrd.data.datasets import DATASETS, as_image_data, load_data
from bnn_itrd.data.splits import ImageData, Split
from bnn_itrd.data.tensor_split import TensorSplit

__all__ = ["DATASETS", "UNLABELLED", "Batch", "ImageData", "Split", "TensorSplit", "as_image_data", "load_data"]
