"""Export of networks to FPGAs, by the programs FINN, which makes hardware of a QONNX file, and qonnx, which runs one.

`check_fpga` tells whether FINN can map a network to hardware, `to_qonnx` writes the file, and `validate_qonnx` compares
it with the network.
"""

from bnn_itrd.export.fpga.agreement import Outlier, QonnxAgreement, compare_values, validate_qonnx
from bnn_itrd.export.fpga.check import check_fpga
from bnn_itrd.export.fpga.execution import QonnxValues, inference_cost, qonnx_values, run_qonnx
from bnn_itrd.export.fpga.qonnx_file import FLAVORS, QONNX_FORMAT_VERSION, to_qonnx
from bnn_itrd.export.fpga.report import FpgaLayer, FpgaReport

__all__ = [
    "FLAVORS",
    "QONNX_FORMAT_VERSION",
    "FpgaLayer",
    "FpgaReport",
    "Outlier",
    "QonnxAgreement",
    "QonnxValues",
    "check_fpga",
    "compare_values",
    "inference_cost",
    "qonnx_values",
    "run_qonnx",
    "to_qonnx",
    "validate_qonnx",
]
