"""Binarisation: sign with surrogate gradients, binarisers, binary layers, rewriting of a whole network."""

from bnn_itrd.quant.adabin import AdaBinActivation, AdaBinWeight, adabin_weight
from bnn_itrd.quant.basic import ClippedActivation, XNORWeight
from bnn_itrd.quant.binarize import binarize
from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.biper import BiPerSineWeight, BiPerWeight, biper_penalty
from bnn_itrd.quant.bireal import BiRealWeight, PolynomialActivation
from bnn_itrd.quant.integer import IntegerQuantizer, WeightQuantizer, integer_quantize, integer_range
from bnn_itrd.quant.integer_layers import IntegerConv2d, IntegerLinear
from bnn_itrd.quant.irnet import IRNetActivation, IRNetWeight, ede_parameters, irnet_weight
from bnn_itrd.quant.layers import BinaryConv2d, BinaryLinear
from bnn_itrd.quant.penalty import Penalised, penalty
from bnn_itrd.quant.progress import set_progress, start_epoch
from bnn_itrd.quant.rad import RAD, rad_penalty
from bnn_itrd.quant.rbnn import RBNNActivation, RBNNWeight, rbnn_rotations
from bnn_itrd.quant.reactnet import RPReLU, RSignActivation
from bnn_itrd.quant.real import RealWeight
from bnn_itrd.quant.recu import ReCUActivation, ReCUWeight, recu_activation, recu_tau, recu_weight
from bnn_itrd.quant.report import Binarized, Change, Report
from bnn_itrd.quant.reste import ReSTEActivation, ReSTEWeight, reste_o
from bnn_itrd.quant.scheme import ACTIVATIONS, NONLINEARITIES, SCHEMES, WEIGHTS, Scheme, as_scheme
from bnn_itrd.quant.sign import SURROGATES, sign
from bnn_itrd.quant.siman import SiMaNActivation, SiMaNWeight, siman_weight
from bnn_itrd.quant.stages import load_stage

__all__ = [
    "ACTIVATIONS",
    "NONLINEARITIES",
    "RAD",
    "SCHEMES",
    "SURROGATES",
    "WEIGHTS",
    "ActivationBinarizer",
    "AdaBinActivation",
    "AdaBinWeight",
    "BiPerSineWeight",
    "BiPerWeight",
    "BiRealWeight",
    "Binarized",
    "BinaryConv2d",
    "BinaryLinear",
    "BinaryWeight",
    "Change",
    "ClippedActivation",
    "IRNetActivation",
    "IRNetWeight",
    "IntegerConv2d",
    "IntegerLinear",
    "IntegerQuantizer",
    "Penalised",
    "PolynomialActivation",
    "RBNNActivation",
    "RBNNWeight",
    "RPReLU",
    "RSignActivation",
    "ReCUActivation",
    "ReCUWeight",
    "ReSTEActivation",
    "ReSTEWeight",
    "RealWeight",
    "Report",
    "Scheme",
    "SiMaNActivation",
    "SiMaNWeight",
    "WeightBinarizer",
    "WeightQuantizer",
    "XNORWeight",
    "adabin_weight",
    "as_scheme",
    "binarize",
    "biper_penalty",
    "ede_parameters",
    "integer_quantize",
    "integer_range",
    "irnet_weight",
    "load_stage",
    "penalty",
    "rad_penalty",
    "rbnn_rotations",
    "recu_activation",
    "recu_tau",
    "recu_weight",
    "reste_o",
    "set_progress",
    "sign",
    "siman_weight",
    "start_epoch",
]
