"""The orders in which a TFLite file stores the elements of the graph's tensors, and the conversions between them.

Such an order is called a form. Images are (n, c, h, w) in ONNX and (n, h, w, c) in TFLite.
An image may also be stored reversed in h and w: with a stride of 2, PyTorch's padding=1 pads at the beginning of an
axis and TFLite's SAME at its end, so both give the same windows if the image is reversed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from einops import rearrange

from bnn_itrd.export.graph import constant
from bnn_itrd.export.lce.network import Network, Tensor
from bnn_itrd.export.runtime.errors import ExportError

__all__ = ["AXIS", "PLAIN", "Flat", "Form", "Image", "Values", "Watched", "refuse", "reverse_array", "source"]

# Position in (n, h, w, c) of each axis of (n, c, h, w).
AXIS = (0, 3, 1, 2)


class Image(NamedTuple):
    """The form of an image (n, c, h, w) that the file stores as (n, h, w, c).

    reversed_h, reversed_w: whether its rows, and its columns, are stored in reversed order.
    """

    reversed_h: bool = False
    reversed_w: bool = False


class Flat(NamedTuple):
    """The form of a flattened image (n, c * h * w) whose elements the file stores in the order of an `Image` form.

    The linear layer that reads it has its weights reordered instead. channels, height, width: of the image.
    """

    image: Image
    channels: int
    height: int
    width: int

    def order(self) -> np.ndarray:
        """Returns, for each stored element, its index in ONNX's order; (c * h * w,)."""
        positions = np.arange(self.channels * self.height * self.width)
        image = rearrange(positions, "(c h w) -> h w c", c=self.channels, h=self.height, w=self.width)
        return reverse_array(image[None], self.image).reshape(-1)


# The form of a tensor that is stored in ONNX's order.
PLAIN = None
Form = Image | Flat | None


def reverse_array(array: np.ndarray, image: Image) -> np.ndarray:
    """Returns an array (n, h, w, c), or a kernel (o, h, w, i), with h and w reversed as the form `image` says."""
    if image.reversed_h:
        array = array[:, ::-1]
    return array[:, :, ::-1] if image.reversed_w else array


def _where(node: ir.Node) -> str:
    """Returns words for a message that say which layer a node was made from: its path, or the node's operation."""
    return node.metadata_props.get("path") or f"the network's {node.op_type}"


def refuse(node: ir.Node, what: str, way_out: str) -> ExportError:
    """Returns an ExportError for a node that an LCE file cannot represent, for the caller to raise.

    what: what is wrong; way_out: what the user can do. The message also names the node's layer.
    """
    return ExportError(f"{_where(node)}: {what}: {way_out}")


def source(node: ir.Node) -> ir.Value:
    """Returns a node's first input. Raises ExportError if it has none."""
    value = node.inputs[0] if node.inputs else None
    if value is None:
        raise refuse(node, f"{node.op_type} has no input", "give it an input")
    return value


class Watched(NamedTuple):
    """A tensor of the TFLite network that is compared with the PyTorch network's when the file is checked.

    path: of the binary layer or quantiser; tensor, form: the tensor and its form; is_sign: True for the input of a
    binary layer, of which the signs are compared, False for an activation that was rounded to integers.
    """

    path: str
    tensor: Tensor
    form: Form
    is_sign: bool


def _sizes(value: ir.Value) -> list[int | None] | None:
    """Returns a tensor's shape, with None for the batch; None if the shape or another size is not known."""
    shape = None if value.shape is None else list(value.shape)
    if shape is None or not all(isinstance(size, int) or str(size) == "batch" for size in shape):
        return None
    return [size if isinstance(size, int) else None for size in shape]


class Values:
    """The table that maps each tensor of the ONNX graph to the tensors of the TFLite network that hold it.

    A tensor of the graph may be stored with its elements in several orders (`Form`): `put` records a tensor, and
    `fetch` returns it in any order, after adding the operations that convert it. preferred: the order for images if an
    operation needs no other; watched: the tensors to compare with the PyTorch network's, in the order of execution.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.preferred = Image()
        self.watched: list[Watched] = []
        self._forms: dict[ir.Value, dict[Form, Tensor]] = {}
        self._owners: dict[Tensor, int] = {}

    def put(self, value: ir.Value, tensor: Tensor, form: Form = PLAIN) -> None:
        """Records that `tensor` holds the graph's tensor `value`, with its elements in the order `form`.

        `home` later returns the first order that was recorded for a tensor.
        """
        if _sizes(value) is None:
            # torch's exporter gives no shapes inside an operation that it decomposes.
            n, *rest = tensor.shape
            if isinstance(form, Image):
                rest = [rest[2], *rest[:2]]
            value.shape = ir.Shape(["batch" if n == 1 else n, *rest])
        self._forms.setdefault(value, {})[form] = tensor
        self._owners[tensor] = self._owners.get(tensor, 0) + 1

    def is_shared(self, tensor: Tensor) -> bool:
        """Returns whether no activation may be fused into the operation that computes a tensor.

        That is so if the tensor stands for several tensors of the graph, or is compared with the network's.
        """
        return self._owners.get(tensor, 0) > 1 or any(entry.tensor is tensor for entry in self.watched)

    def forget(self, value: ir.Value) -> None:
        """Forgets which tensors hold the graph's tensor `value`, so that `put` can record others."""
        self._forms.pop(value, None)

    def home(self, value: ir.Value) -> Form:
        """Returns the order of elements in which a tensor of the graph was computed, which needs no conversion."""
        return next(iter(self._forms[value])) if value in self._forms else PLAIN

    def known(self, value: ir.Value | None) -> bool:
        """Returns whether a tensor of the graph is computed from the images, so that it is not a constant."""
        return value is not None and value in self._forms

    def sizes(self, value: ir.Value, node: ir.Node) -> list[int]:
        """Returns the shape of a tensor of the graph, with 1 for the batch.

        Raises ExportError, naming the layer of `node`, if another size is not fixed.
        """
        return [1 if size is None else size for size in self._known(value, node)]

    def _known(self, value: ir.Value, node: ir.Node) -> list[int | None]:
        """Returns the shape of a tensor of the graph, with None for the batch.

        Raises ExportError, naming the layer of `node`, if another size is not fixed.
        """
        sizes = _sizes(value)
        if sizes is None:
            raise refuse(node, "the shape of its result depends on the images", "reshape to fixed sizes")
        return sizes

    def target(self, value: ir.Value, node: ir.Node) -> list[int]:
        """Returns the shape of a tensor of the graph as TFLite's RESHAPE takes it, with -1 for the batch."""
        return [-1 if size is None else size for size in self._known(value, node)]

    def reshape(self, tensor: Tensor, target: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Returns the tensor reshaped; `target` has -1 for the batch, and `shape` is the same shape with its size."""
        if list(tensor.shape) == list(shape):
            return tensor
        return self.network.emit("RESHAPE", [tensor, self.network.integers(target)], shape)

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Returns the tensor with its axes in another order, by a TRANSPOSE."""
        shape = [tensor.shape[axis] for axis in order]
        return self.network.emit("TRANSPOSE", [tensor, self.network.integers(order)], shape)

    def reverse(self, tensor: Tensor, have: Image, want: Image) -> Tensor:
        """Returns an image (n, h, w, c) with rows and columns reversed where `have` and `want` differ."""
        axes = [i + 1 for i in range(2) if have[i] != want[i] and tensor.shape[i + 1] > 1]
        if not axes:
            return tensor
        return self.network.emit("REVERSE_V2", [tensor, self.network.integers(axes)], tensor.shape)

    def _image_to_plain(self, tensor: Tensor) -> Tensor:
        """Returns an image (n, h, w, c) as (n, c, h, w)."""
        n, h, w, c = tensor.shape
        # An image of one channel or one pixel has its elements in the same order in both layouts.
        if c == 1 or h == w == 1:
            return self.reshape(tensor, [-1, c, h, w], [n, c, h, w])
        return self.transpose(tensor, (0, 3, 1, 2))

    def _plain_to_image(self, tensor: Tensor) -> Tensor:
        """Returns an image (n, c, h, w) as (n, h, w, c)."""
        n, c, h, w = tensor.shape
        if c == 1 or h == w == 1:
            return self.reshape(tensor, [-1, h, w, c], [n, h, w, c])
        return self.transpose(tensor, (0, 2, 3, 1))

    def _convert(self, tensor: Tensor, have: Form, want: Form) -> Tensor:
        """Returns a tensor with its elements rearranged from the order `have` to the order `want`."""
        if isinstance(have, Image) and isinstance(want, Image):
            return self.reverse(tensor, have, want)
        if isinstance(have, Flat):
            sizes = [have.height, have.width, have.channels]
            image = self.reshape(tensor, [-1, *sizes], [tensor.shape[0], *sizes])
            plain = self._image_to_plain(self.reverse(image, have.image, Image()))
            return self.reshape(plain, [-1, tensor.shape[1]], tensor.shape)
        if isinstance(have, Image):
            return self._image_to_plain(self.reverse(tensor, have, Image()))
        if not isinstance(want, Image):
            raise TypeError(f"a tensor of the form {have} cannot be converted to the form {want}")
        return self.reverse(self._plain_to_image(tensor), Image(), want)

    def fetch(self, value: ir.Value | None, node: ir.Node, form: Form = PLAIN) -> Tensor:
        """Returns the TFLite tensor that holds a tensor of the graph with its elements in the order `form`.

        If it is known in another order only, the operations that convert it are added to the network.
        A constant becomes a constant of the TFLite network. Raises ExportError, naming the layer of `node`, if the
        tensor is missing or does not hold floats.
        """
        if value is None:
            raise refuse(node, "an input is missing", "update bnn_itrd")
        forms = self._forms.get(value)
        if forms is None:
            array = constant(value)
            if array is None or not np.issubdtype(array.dtype, np.floating):
                raise refuse(node, "it reads a tensor that does not hold floats", "let the network compute with floats")
            return self.network.constant(self.array(array, form))
        if form not in forms:
            home = self.home(value)
            forms[form] = self._convert(forms[home], home, form)
        return forms[form]

    def array(self, array: np.ndarray, form: Form) -> np.ndarray:
        """Returns a constant rearranged so that it broadcasts to tensors whose elements are in the order `form`."""
        if not isinstance(form, Image) or array.ndim == 0:
            return array
        full = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return reverse_array(rearrange(full, "n c h w -> n h w c"), form)

    def image_form(self, value: ir.Value) -> Image:
        """Returns the order, reversed or not, in which an image of the graph can be fetched with the least work."""
        home = self.home(value)
        return home if isinstance(home, Image) else self.preferred
