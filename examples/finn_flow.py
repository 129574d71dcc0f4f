"""Runs a file of `bnn-itrd export --to finn` through the Python part of FINN, a compiler for FPGAs.

    python finn_flow.py student.finn.onnx [--images 2] [--part xczu7ev-ffvc1156-2-e] [--fps 500] [--out DIR]

FINN turns a network into hardware layers, which it joins to one dataflow partition, the part that runs on the FPGA. The
script runs FINN's transformations in stages. After each stage it executes the graph and prints the largest difference
from the logits of the given file. As soon as there are hardware layers, it also prints the operations that stay outside
the partition. At the end it prints FINN's estimates of resources and speed. Vivado is not needed, since nothing is
synthesised. The same stages work for networks with and without shortcuts, because a transformation that finds nothing
to change does nothing. The script needs the Python of a FINN installation, but not bnn_itrd.

The exit status is 0 if all logits agree and no operation stays outside, 1 if a stage differs or an operation stays
outside, and 2 if the arguments are wrong or FINN is not installed.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

Model = Any  # qonnx's ModelWrapper
Array = Any  # a NumPy array; NumPy is imported only where it is used, in FINN's Python

NEEDS = (
    "Run this with the Python of a FINN installation: https://github.com/Xilinx/finn at branch dev, the qonnx that its "
    "fetch-repos.sh names, and the packages of its requirements.txt, with torch."
)

_STREAMLINE = "finn.transformation.streamline"
_GENERAL = "qonnx.transformation.general"
_HARDWARE = "finn.transformation.fpgadataflow.convert_to_hw_layers"
_LAYOUTS = "qonnx.transformation.infer_data_layouts:InferDataLayouts"
_NUMBERS = "qonnx.transformation.infer_datatypes:InferDataTypes"

# Stage -> the addresses of its transformations, in order.
STAGES: dict[str, tuple[str, ...]] = {
    # Weights become integers with a datatype. The file contains the thresholds already.
    "read": (
        "qonnx.transformation.infer_shapes:InferShapes",
        "qonnx.transformation.fold_constants:FoldConstants",
        "finn.transformation.qonnx.convert_qonnx_to_finn:ConvertQONNXtoFINN",
        f"{_GENERAL}:GiveUniqueNodeNames",
        f"{_GENERAL}:GiveReadableTensorNames",
        f"{_GENERAL}:RemoveStaticGraphInputs",
        _NUMBERS,
        _LAYOUTS,
    ),
    # The division by the number of pixels is moved in front of the last thresholds, which absorb it.
    "pooled": (f"{_HARDWARE}:InferGlobalAccPoolLayer", f"{_STREAMLINE}:Streamline", _LAYOUTS),
    # Convolutions become matrix products with the channels on the last axis.
    "lowered": (
        "qonnx.transformation.lower_convs_to_matmul:LowerConvsToMatMul",
        f"{_STREAMLINE}.reorder:MakeMaxPoolNHWC",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoMultiThreshold",
        f"{_STREAMLINE}.reorder:MakeMaxPoolNHWC",
        f"{_STREAMLINE}.absorb:AbsorbConsecutiveTransposes",
        _LAYOUTS,
    ),
    # Transposes are moved through a residual network, block by block, so this stage is repeated until nothing moves.
    "transposed": (
        f"{_STREAMLINE}.reorder:MoveTransposePastFork",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoMultiThreshold",
        f"{_STREAMLINE}.reorder:MoveTransposePastJoinAdd",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoMultiThreshold",
        f"{_STREAMLINE}.absorb:AbsorbConsecutiveTransposes",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoFlatten",
        _LAYOUTS,
    ),
    # Signs -1 and +1 become the bits 0 and 1, so that FINN's padding of 0 now means -1.
    "binary": (
        "qonnx.transformation.bipolar_to_xnor:ConvertBipolarMatMulToXnorPopcount",
        f"{_STREAMLINE}:Streamline",
        _LAYOUTS,
        f"{_GENERAL}:RemoveUnusedTensors",
    ),
    "hardware": (
        f"{_HARDWARE}:InferThresholdingLayer",
        f"{_HARDWARE}:InferBinaryMatrixVectorActivation",
        f"{_HARDWARE}:InferQuantizedMatrixVectorActivation",
        f"{_HARDWARE}:InferPool",
        f"{_HARDWARE}:InferConvInpGen",
        "finn.transformation.move_reshape:RemoveCNVtoFCFlatten",
        f"{_HARDWARE}:InferElementwiseBinaryOperation",
        f"{_HARDWARE}:InferDuplicateStreamsLayer",
        f"{_STREAMLINE}.absorb:AbsorbConsecutiveTransposes",
        f"{_GENERAL}:GiveUniqueNodeNames",
        _LAYOUTS,
    ),
    # This stage is applied to the graph inside the partition.
    "narrowed": (
        "finn.transformation.fpgadataflow.minimize_weight_bit_width:MinimizeWeightBitWidth",
        "finn.transformation.fpgadataflow.minimize_accumulator_width:MinimizeAccumulatorWidth",
        _NUMBERS,
        f"{_STREAMLINE}.round_thresholds:RoundAndClipThresholds",
        _NUMBERS,
        "finn.transformation.fpgadataflow.minimize_weight_bit_width:MinimizeWeightBitWidth",
        _NUMBERS,
    ),
}


def _whole_numbers(model: Model, node: Any) -> bool:
    """Returns whether all inputs of an operation are integers.

    The multiplication and the bias at the logits have float inputs, and so stay on the host.
    """
    return all(model.get_tensor_datatype(name).is_integer() for name in node.input)


def apply(model: Model, stage: str) -> Model:
    """Applies the transformations of a stage to a graph and returns it. Exits with a message if one of them fails."""
    for address in STAGES[stage]:
        module, name = address.split(":")
        try:
            step = getattr(importlib.import_module(module), name)
            model = model.transform(step(_whole_numbers) if name == "InferElementwiseBinaryOperation" else step())
        except Exception as error:
            raise SystemExit(f"stage {stage}: FINN's {name} failed: {type(error).__name__}: {error}") from error
    return model


def apply_until_still(model: Model, stage: str) -> Model:
    """Applies a stage again and again until the order of the operations does not change any more; returns the graph."""
    before = None
    while before != (kinds := [node.op_type for node in model.graph.node]):
        before, model = kinds, apply(model, stage)
    return model


def with_borders(model: Model) -> Model:
    """Returns a copy of a graph in which the padding of binary layers is -1, so that it can be executed.

    Before the stage `binary` the graph says that it is 0, while FINN treats it as -1.
    """
    import numpy as np
    from onnx import helper
    from qonnx.core.datatype import DataType
    from qonnx.custom_op.registry import getCustomOp
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes

    if not model.get_nodes_by_op_type("Conv") and not model.get_nodes_by_op_type("Im2Col"):
        return model
    model = type(model)(copy.deepcopy(model.model)).transform(InferDataTypes())
    bipolar = DataType["BIPOLAR"]
    for index, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "Im2Col" and model.get_tensor_datatype(node.input[0]) == bipolar:
            getCustomOp(node).set_nodeattr("pad_value", -1)
        if node.op_type != "Conv" or model.get_tensor_datatype(node.input[1]) != bipolar:
            continue
        pads = next((a.ints for a in node.attribute if a.name == "pads"), None)
        if pads is None or not any(pads):
            continue
        sizes, border, padded = (f"{node.output[0]}.{what}" for what in ("pads", "border", "padded"))
        model.set_initializer(sizes, np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64))
        model.set_initializer(border, np.float32(-1))
        pads[:] = [0, 0, 0, 0]
        model.graph.node.insert(index, helper.make_node("Pad", [node.input[0], sizes, border], [padded]))
        node.input[0] = padded
    return model.transform(InferShapes())


def execute(model: Model, images: Array) -> Array:
    """Executes a graph on images (n, c, h, w), one at a time; returns the logits (n, classes)."""
    import numpy as np
    from qonnx.core.onnx_exec import execute_onnx

    model = with_borders(model)
    name, logits = model.graph.input[0].name, model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {name: image[None]})[logits] for image in images])


def random_images(metadata: dict[str, str], count: int) -> Array:
    """Returns random images as the host would give them to the FPGA: integers, stored as float32.

    metadata: that of the file, which has the input's shape, datatype and scale.
    """
    import numpy as np

    shape = [int(size) for size in metadata["input_shape"].strip("[]").split(",")]
    x = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    if metadata["input_datatype"] == "BIPOLAR":
        return np.where(x >= 0, np.float32(1), np.float32(-1))
    return np.rint(np.clip(x / np.float32(metadata["input_scale"]), -128, 127))


def outside(model: Model) -> tuple[list[Any], list[Any]]:
    """Returns the operations that are not hardware layers: (those that the host computes, all others).

    The host transposes the images at the input, and multiplies and adds constants at the logits.
    """
    hosts: list[Any] = []
    reader = model.find_consumer(model.graph.input[0].name)
    if reader is not None and reader.op_type == "Transpose":
        hosts.append(reader)
    last = model.find_producer(model.graph.output[0].name)
    while last is not None and last.op_type in ("Mul", "Add") and model.get_initializer(last.input[1]) is not None:
        hosts.append(last)
        last = model.find_producer(last.input[0])
    others = [node for node in model.graph.node if not node.domain.startswith("finn.custom_op.fpgadataflow")]
    return hosts, [node for node in others if node not in hosts]


def estimate(model: Model, part: str, fps: float, clock: float) -> dict[str, float]:
    """Returns FINN's estimates of resources and speed for a partition, as name -> number.

    part: the FPGA; fps: images per second, for which FINN chooses how much runs in parallel; clock: in MHz.
    """
    from finn.analysis.fpgadataflow.dataflow_performance import dataflow_performance
    from finn.transformation.fpgadataflow.annotate_cycles import AnnotateCycles
    from finn.transformation.fpgadataflow.set_folding import SetFolding
    from finn.transformation.fpgadataflow.specialize_layers import SpecializeLayers
    from qonnx.custom_op.registry import getCustomOp
    from qonnx.transformation.general import GiveUniqueNodeNames
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes

    rate = clock * 1e6
    for step in (SpecializeLayers(part), GiveUniqueNodeNames(), InferShapes(), InferDataTypes()):
        model = model.transform(step)
    model = model.transform(SetFolding(rate / fps)).transform(AnnotateCycles())
    used: Counter[str] = Counter()
    for node in model.graph.node:
        used.update({k: v for k, v in getCustomOp(node).node_res_estimation(part).items() if "efficiency" not in k})
    speed = model.analysis(dataflow_performance)
    return {**used, "fps": rate / speed["max_cycles"], "slowest": speed["max_cycles_node_name"]}


class Report:
    """The printed table of stages; `failed` is True if a stage differed or left an operation outside the partition.

    images: those on which each graph is executed; tolerance: the allowed difference, as a share of the largest logit;
    folder: where the graphs are saved.
    """

    def __init__(self, model: Model, images: Array, tolerance: float, folder: Path) -> None:
        self.images, self.folder, self.failed = images, folder, False
        self.expected = execute(model, images)
        self.allowed = tolerance * max(1.0, float(abs(self.expected).max()))
        print(f"{'stage':<12} {'largest difference':>18}  outside the partition (in brackets: on the host)", flush=True)

    def stage(self, name: str, model: Model, *, hardware: bool = False) -> None:
        """Executes and saves the graph after a stage, and prints its line; hardware: also list operations outside."""
        model.save(str(self.folder / f"{name}.onnx"))
        difference = float(abs(execute(model, self.images) - self.expected).max())
        text = ""
        if hardware:
            hosts, left = outside(model)
            text = ", ".join([*(f"({n.name or n.op_type})" for n in hosts), *(n.name or n.op_type for n in left)])
            self.failed |= bool(left)
        differs = not difference <= self.allowed
        self.failed |= differs
        print(f"{name:<12} {difference:>18.2g}  {text}{'  DIFFERS' if differs else ''}", flush=True)


def flow(path: Path, options: argparse.Namespace, folder: Path) -> bool:
    """Runs all stages on a file; returns whether all logits agree and all operations are in one partition."""
    from finn.transformation.fpgadataflow.create_dataflow_partition import CreateDataflowPartition
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.custom_op.registry import getCustomOp

    model = ModelWrapper(str(path))
    metadata = {entry.key: entry.value for entry in model.model.metadata_props}
    if metadata.get("flavor") != "finn" or metadata.get("input_datatype") not in ("INT8", "BIPOLAR"):
        raise SystemExit(
            f"{path} is not a file for FINN with integer inputs: write one with bnn-itrd export RUN --to finn"
        )
    report = Report(model, random_images(metadata, options.images), options.tolerance, folder)
    for stage in ("read", "pooled", "lowered"):
        report.stage(stage, model := apply(model, stage))
    report.stage("transposed", model := apply_until_still(model, "transposed"))
    report.stage("binary", model := apply(model, "binary"))
    report.stage("hardware", model := apply(model, "hardware"), hardware=True)
    parent = model.transform(CreateDataflowPartition(str(folder)))
    report.stage("partitioned", parent, hardware=True)
    partitions = parent.get_nodes_by_op_type("StreamingDataflowPartition")
    if len(partitions) != 1:
        print(f"{len(partitions)} dataflow partitions, but FINN can build only one")
        return False
    file = getCustomOp(partitions[0]).get_nodeattr("model")
    inside = apply(ModelWrapper(file), "narrowed")
    inside.save(file)
    report.stage("narrowed", parent, hardware=True)
    layers = Counter(node.op_type for node in inside.graph.node)
    print("one dataflow partition: " + ", ".join(f"{count} {kind}" for kind, count in sorted(layers.items())))
    told = estimate(inside, options.part, options.fps, options.clock)
    print(
        f"estimates for {options.part} at {options.clock:g} MHz: {told['LUT']:,.0f} LUT, "
        f"{told['BRAM_18K']:.0f} BRAM18, {told['URAM']:.0f} URAM, {told['DSP']:.0f} DSP, {told['fps']:.0f} fps "
        f"(slowest: {told['slowest']})"
    )
    return not report.failed


def source_of(package: str) -> Path | None:
    """Returns the folder of a package without importing the package; None if it is not installed."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) if places else None


def _positive(text: str) -> float:
    """Returns an option's value as a positive number. Raises ArgumentTypeError if it is none."""
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"it must be positive, got {text}")
    return number


def main(argv: list[str] | None = None) -> int:
    """Runs the script with command line arguments (None: those of the process); returns the exit status."""
    p = argparse.ArgumentParser("finn_flow.py", description="Take a file for FINN through FINN's own Python steps.")
    p.add_argument("file", type=Path, help="a file that bnn-itrd export --to finn wrote")
    p.add_argument("--images", type=int, default=2, help="random images to compare, 2 by default")
    p.add_argument(
        "--tolerance",
        type=_positive,
        default=1e-5,
        help="allowed difference, as a share of the largest logit; 1e-5 by default",
    )
    p.add_argument("--part", default="xczu7ev-ffvc1156-2-e", help="the FPGA, by default that of the board ZCU104")
    p.add_argument("--fps", type=_positive, default=500.0, help="images per second to reach, 500 by default")
    p.add_argument("--clock", type=_positive, default=100.0, help="clock in MHz, 100 by default")
    p.add_argument("--out", type=Path, help="a folder for the graphs after each stage and that of the partition")
    options = p.parse_args(argv)
    if options.images < 1:
        p.error(f"--images must be at least 1, got {options.images}")
    if not options.file.is_file():
        p.error(f"there is no file {options.file}: bnn-itrd export RUN --to finn writes one")
    source, qonnx = source_of("finn.transformation"), source_of("qonnx.transformation")
    if source is None or qonnx is None:
        missing = "FINN" if source is None else "qonnx"
        print(f"{missing} is not installed in {sys.executable}. {NEEDS}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        # FINN reads both variables when it is imported. The first is the folder of its checkout, which contains
        # src/finn/transformation.
        os.environ.setdefault("FINN_ROOT", str(source.parents[2]))
        os.environ.setdefault("FINN_BUILD_DIR", scratch)
        warnings.filterwarnings("ignore")
        return 0 if flow(options.file, options, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
