"""Binarisation: sign with surrogate gradients, binarisers, binary layers, rewriting of a whole network."""

from bnn_itrd.quant.annealing import set_progress, start_epoch
from bnn_itrd.quant.binarizer import ActivationBinarizer, BinaryWeight, WeightBinarizer
from bnn_itrd.quant.integer_layers import IntegerConv2d, IntegerLinear
from bnn_itrd.quant.integers import IntegerQuantizer, WeightQuantizer, integer_quantize, integer_range
from bnn_itrd.quant.layers import BinaryConv2d, BinaryLinear
from bnn_itrd.quant.methods.adabin import AdaBinActivation, AdaBinWeight, adabin_weight
from bnn_itrd.quant.methods.biper import BiPerSineWeight, BiPerWeight, biper_penalty
from bnn_itrd.quant.methods.bireal import BiRealWeight, PolynomialActivation
from bnn_itrd.quant.methods.irnet import IRNetActivation, IRNetWeight, ede_parameters, irnet_weight
from bnn_itrd.quant.methods.rad import RAD, rad_penalty
from bnn_itrd.quant.methods.rbnn import RBNNActivation, RBNNWeight, rbnn_rotations
from bnn_itrd.quant.methods.reactnet import RPReLU, RSignActivation
from bnn_itrd.quant.methods.real import RealWeight
from bnn_itrd.quant.methods.recu import ReCUActivation, ReCUWeight, recu_activation, recu_tau, recu_weight
from bnn_itrd.quant.methods.reste import ReSTEActivation, ReSTEWeight, reste_o
from bnn_itrd.quant.methods.siman import SiMaNActivation, SiMaNWeight, siman_weight
from bnn_itrd.quant.methods.xnor import ClippedActivation, XNORWeight
from bnn_itrd.quant.penalties import Penalised, penalty
from bnn_itrd.quant.rewrite.binarize import binarize
from bnn_itrd.quant.rewrite.report import Binarized, Change, Report
from bnn_itrd.quant.scheme import ACTIVATIONS, NONLINEARITIES, SCHEMES, WEIGHTS, Scheme, as_scheme
from bnn_itrd.quant.surrogates import SURROGATES, sign
from bnn_itrd.quant.two_stage import load_stage

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
