"""Takes a file of `bnn-itrd export --to finn` through FINN's own Python steps, up to its estimates.

    python finn_flow.py student.finn.onnx [--images 2] [--part xczu7ev-ffvc1156-2-e] [--fps 500] [--out DIR]

After each stage it prints the largest difference from the logits of the file as it was given, and, once there are
hardware layers, what stays outside the dataflow partition. It ends with FINN's estimates; no Vivado is needed, and
nothing is synthesised. One order of steps does for plain and residual networks: what a network lacks, its steps leave
alone. It runs in the Python of a FINN installation, which need not have bnn_itrd.
Exit status: 0 all the same and all inside, 1 a stage differs or an operation is left outside, 2 bad arguments, no FINN.
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
Array = Any  # of numpy, which only FINN's Python must have

NEEDS = (
    "Run this with the Python of a FINN installation: https://github.com/Xilinx/finn at branch dev, the qonnx that its "
    "fetch-repos.sh names, and the packages of its requirements.txt, with torch."
)

_STREAMLINE = "finn.transformation.streamline"
_GENERAL = "qonnx.transformation.general"
_HARDWARE = "finn.transformation.fpgadataflow.convert_to_hw_layers"
_LAYOUTS = "qonnx.transformation.infer_data_layouts:InferDataLayouts"
_NUMBERS = "qonnx.transformation.infer_datatypes:InferDataTypes"

STAGES: dict[str, tuple[str, ...]] = {
    # Weights become whole numbers with a datatype; the thresholds are in the file already.
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
    # The division by the number of pixels comes to stand in front of the last thresholds, which absorb it.
    "pooled": (f"{_HARDWARE}:InferGlobalAccPoolLayer", f"{_STREAMLINE}:Streamline", _LAYOUTS),
    # Convolutions become matrix products, channels last.
    "lowered": (
        "qonnx.transformation.lower_convs_to_matmul:LowerConvsToMatMul",
        f"{_STREAMLINE}.reorder:MakeMaxPoolNHWC",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoMultiThreshold",
        f"{_STREAMLINE}.reorder:MakeMaxPoolNHWC",
        f"{_STREAMLINE}.absorb:AbsorbConsecutiveTransposes",
        _LAYOUTS,
    ),
    # Of a residual network, block after block: repeated until nothing moves.
    "transposed": (
        f"{_STREAMLINE}.reorder:MoveTransposePastFork",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoMultiThreshold",
        f"{_STREAMLINE}.reorder:MoveTransposePastJoinAdd",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoMultiThreshold",
        f"{_STREAMLINE}.absorb:AbsorbConsecutiveTransposes",
        f"{_STREAMLINE}.absorb:AbsorbTransposeIntoFlatten",
        _LAYOUTS,
    ),
    # Signs become bits, and a border of 0 becomes one of -1.
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
    # Inside the partition, which "partitioned" makes of the hardware layers.
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
    """Whether an operation reads whole numbers alone; the step and the bias of the logits are the host's."""
    return all(model.get_tensor_datatype(name).is_integer() for name in node.input)


def apply(model: Model, stage: str) -> Model:
    """The steps of a stage, one after the other."""
    for address in STAGES[stage]:
        module, name = address.split(":")
        try:
            step = getattr(importlib.import_module(module), name)
            model = model.transform(step(_whole_numbers) if name == "InferElementwiseBinaryOperation" else step())
        except Exception as error:
            raise SystemExit(f"{stage}: {name} stops: {type(error).__name__}: {error}") from error
    return model


def apply_until_still(model: Model, stage: str) -> Model:
    """A stage again and again, until it leaves the order of the operations as it was."""
    before = None
    while before != (kinds := [node.op_type for node in model.graph.node]):
        before, model = kinds, apply(model, stage)
    return model


def with_borders(model: Model) -> Model:
    """A copy in which the borders of binary layers are -1, as FINN reads them, for an execution before `binary`."""
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
    """The logits of images, one at a time; (n, c, h, w) -> (n, classes)."""
    import numpy as np
    from qonnx.core.onnx_exec import execute_onnx

    model = with_borders(model)
    name, logits = model.graph.input[0].name, model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {name: image[None]})[logits] for image in images])


def random_images(metadata: dict[str, str], count: int) -> Array:
    """Images as the host makes them of normalised ones: whole numbers, float32."""
    import numpy as np

    shape = [int(size) for size in metadata["input_shape"].strip("[]").split(",")]
    x = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    if metadata["input_datatype"] == "BIPOLAR":
        return np.where(x >= 0, np.float32(1), np.float32(-1))
    return np.rint(np.clip(x / np.float32(metadata["input_scale"]), -128, 127))


def outside(model: Model) -> tuple[list[Any], list[Any]]:
    """Operations that are no hardware layers: (those of the host, those left over).

    The host's are a transpose of the images, and, at the logits, their step and their bias.
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
    """FINN's estimates of a partition, folded for so many images a second; `clock` in MHz."""
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
    """Prints a line for each stage, and remembers whether one differed or left something outside."""

    def __init__(self, model: Model, images: Array, tolerance: float, folder: Path) -> None:
        self.images, self.folder, self.failed = images, folder, False
        self.expected = execute(model, images)
        self.allowed = tolerance * max(1.0, float(abs(self.expected).max()))
        print(f"{'stage':<12} {'largest difference':>18}  outside the dataflow (the host's in brackets)", flush=True)

    def stage(self, name: str, model: Model, *, hardware: bool = False) -> None:
        """Executes the graph as it is behind a stage, saves it, and prints its line."""
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
    """Every stage of a file, with its line; whether all is the same and inside one partition."""
    from finn.transformation.fpgadataflow.create_dataflow_partition import CreateDataflowPartition
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.custom_op.registry import getCustomOp

    model = ModelWrapper(str(path))
    metadata = {entry.key: entry.value for entry in model.model.metadata_props}
    if metadata.get("flavor") != "finn" or metadata.get("input_datatype") not in ("INT8", "BIPOLAR"):
        raise SystemExit(f"{path} takes no whole numbers: write it with `bnn-itrd export --to finn`")
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
        print(f"{len(partitions)} dataflow partitions, and FINN builds one")
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
    """The folder of a package, without importing it; None where it is not installed."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) if places else None


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"it must be positive, got {text}")
    return number


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    p = argparse.ArgumentParser("finn_flow.py", description="Take a file for FINN through FINN's own Python steps.")
    p.add_argument("file", type=Path, help="what `bnn-itrd export --to finn` wrote")
    p.add_argument("--images", type=int, default=2, help="random images to compare, 2 by default")
    p.add_argument("--tolerance", type=_positive, default=1e-5, help="of the largest logit, 1e-5 by default")
    p.add_argument("--part", default="xczu7ev-ffvc1156-2-e", help="the FPGA; that of a ZCU104 by default")
    p.add_argument("--fps", type=_positive, default=500.0, help="images a second to fold for, 500 by default")
    p.add_argument("--clock", type=_positive, default=100.0, help="MHz, 100 by default")
    p.add_argument("--out", type=Path, help="a folder for the graph behind each stage and the partition's")
    options = p.parse_args(argv)
    if options.images < 1:
        p.error(f"--images must be at least 1, got {options.images}")
    if not options.file.is_file():
        p.error(f"there is no file {options.file}")
    source, qonnx = source_of("finn.transformation"), source_of("qonnx.transformation")
    if source is None or qonnx is None:
        missing = "FINN" if source is None else "qonnx"
        print(f"{missing} is not installed in {sys.executable}. {NEEDS}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        # FINN reads both when it is imported; the first is the folder of its checkout, around src/finn/transformation.
        os.environ.setdefault("FINN_ROOT", str(source.parents[2]))
        os.environ.setdefault("FINN_BUILD_DIR", scratch)
        warnings.filterwarnings("ignore")
        return 0 if flow(options.file, options, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
