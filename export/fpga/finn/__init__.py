"""`for_finn` turns a QONNX graph into the form that FINN needs: integers everywhere, and thresholds for quantisers."""

from bnn_itrd.export.fpga.finn.borders import put_borders_back
from bnn_itrd.export.fpga.finn.form import for_finn
from bnn_itrd.export.fpga.finn.images import FLOAT_IMAGES, HostImages
from bnn_itrd.export.fpga.finn.pooling import POOLED

__all__ = ["FLOAT_IMAGES", "POOLED", "HostImages", "for_finn", "put_borders_back"]
