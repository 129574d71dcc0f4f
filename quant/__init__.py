"""Binarisation: sign with surrogate gradients, binarisers, binary layers, rewriting of a whole network."""

from bnn_itrd.quant.basic import ClippedActivation, PolynomialActivation, XNORWeight
from bnn_itrd.quant.binarize import binarize
from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.integer import IntegerQuantizer, WeightQuantizer, integer_quantize, integer_range
from bnn_itrd.quant.integer_layers import IntegerConv2d, IntegerLinear
from bnn_itrd.quant.layers import BinaryConv2d, BinaryLinear
from bnn_itrd.quant.progress import set_progress
from bnn_itrd.quant.recu import ReCUActivation, ReCUWeight, recu_activation, recu_tau, recu_weight
from bnn_itrd.quant.report import Binarized, Change, Report
from bnn_itrd.quant.scheme import ACTIVATIONS, SCHEMES, WEIGHTS, Scheme, as_scheme
from bnn_itrd.quant.sign import SURROGATES, sign

__all__ = [
    "ACTIVATIONS",
    "SCHEMES",
    "SURROGATES",
    "WEIGHTS",
    "ActivationBinarizer",
    "Binarized",
    "BinaryConv2d",
    "BinaryLinear",
    "BinaryWeight",
    "Change",
    "ClippedActivation",
    "IntegerConv2d",
    "IntegerLinear",
    "IntegerQuantizer",
    "PolynomialActivation",
    "ReCUActivation",
    "ReCUWeight",
    "Report",
    "Scheme",
    "WeightBinarizer",
    "WeightQuantizer",
    "XNORWeight",
    "as_scheme",
    "binarize",
    "integer_quantize",
    "integer_range",
    "recu_activation",
    "recu_tau",
    "recu_weight",
    "set_progress",
    "sign",
]
