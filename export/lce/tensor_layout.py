"""The forms in which TFLite stores a value of the graph, and the conversions from one form to another.

ONNX's images are (n, c, h, w), TFLite's (n, h, w, c). With a stride of 2, TFLite's SAME pads at the end of an axis and
PyTorch's padding=1 at its beginning: on an image that is reversed in h and w the windows are the same. So an image may
be stored reversed.
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
    """The form of an image (n, c, h, w) that is stored as (n, h, w, c), with h and w reversed or not."""

    reversed_h: bool = False
    reversed_w: bool = False


class Flat(NamedTuple):
    """The form of a flattened image (n, c h w), stored in the order of an image form; its reader reorders weights."""

    image: Image
    channels: int
    height: int
    width: int

    def order(self) -> np.ndarray:
        """Returns, (c h w,), the ONNX index of each stored element."""
        positions = np.arange(self.channels * self.height * self.width)
        image = rearrange(positions, "(c h w) -> h w c", c=self.channels, h=self.height, w=self.width)
        return reverse_array(image[None], self.image).reshape(-1)


# The form of a value whose axes are in ONNX's order.
PLAIN = None
Form = Image | Flat | None


def reverse_array(array: np.ndarray, image: Image) -> np.ndarray:
    """Returns (n, h, w, c), or a kernel (o, h, w, i), with h and w reversed as the form says."""
    if image.reversed_h:
        array = array[:, ::-1]
    return array[:, :, ::-1] if image.reversed_w else array


def _where(node: ir.Node) -> str:
    """Returns the module's path, or the operation's name where the graph has no path for it."""
    return node.metadata_props.get("path") or f"the network's {node.op_type}"


def refuse(node: ir.Node, what: str, way_out: str) -> ExportError:
    """Returns the error for a layer that the target cannot represent: where it is, what is wrong, what to do."""
    return ExportError(f"{_where(node)}: {what}: {way_out}")


def source(node: ir.Node) -> ir.Value:
    """Returns the operation's first input. Raises ExportError where it has none."""
    value = node.inputs[0] if node.inputs else None
    if value is None:
        raise refuse(node, f"{node.op_type} without an input", "give it an input")
    return value


class Watched(NamedTuple):
    """A value to compare with the network's: the input of a sign or, with `is_sign` False, an integer activation.

    path: path of the layer or quantiser.
    """

    path: str
    tensor: Tensor
    form: Form
    is_sign: bool


def _sizes(value: ir.Value) -> list[int | None] | None:
    """Returns the value's shape, with None for the batch; None where another size is not known."""
    shape = None if value.shape is None else list(value.shape)
    if shape is None or not all(isinstance(size, int) or str(size) == "batch" for size in shape):
        return None
    return [size if isinstance(size, int) else None for size in shape]


class Values:
    """The graph's values as tensors of a TFLite network, in each form that was fetched.

    watched: the values to compare with PyTorch's, in the order of execution.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        # The form for images where no operation needs another.
        self.preferred = Image()
        self.watched: list[Watched] = []
        self._forms: dict[ir.Value, dict[Form, Tensor]] = {}
        self._owners: dict[Tensor, int] = {}

    def put(self, value: ir.Value, tensor: Tensor, form: Form = PLAIN) -> None:
        """Stores the tensor of a value in a form; the first form of a value is its home."""
        if _sizes(value) is None:
            # The parts of an operation that the exporter decomposed have no shape in its graph.
            n, *rest = tensor.shape
            if isinstance(form, Image):
                rest = [rest[2], *rest[:2]]
            value.shape = ir.Shape(["batch" if n == 1 else n, *rest])
        self._forms.setdefault(value, {})[form] = tensor
        self._owners[tensor] = self._owners.get(tensor, 0) + 1

    def is_shared(self, tensor: Tensor) -> bool:
        """Whether a tensor must not be changed, because it is several values or is compared with the network's."""
        return self._owners.get(tensor, 0) > 1 or any(entry.tensor is tensor for entry in self.watched)

    def forget(self, value: ir.Value) -> None:
        """Removes all forms of a value, so that another one can be its home."""
        self._forms.pop(value, None)

    def home(self, value: ir.Value) -> Form:
        """Returns the form in which a value was computed."""
        return next(iter(self._forms[value])) if value in self._forms else PLAIN

    def known(self, value: ir.Value | None) -> bool:
        """Whether the value is computed from the images, and is not a constant."""
        return value is not None and value in self._forms

    def sizes(self, value: ir.Value, node: ir.Node) -> list[int]:
        """Returns the value's shape, with 1 for the batch. Raises ExportError where another size is not fixed."""
        return [1 if size is None else size for size in self._known(value, node)]

    def _known(self, value: ir.Value, node: ir.Node) -> list[int | None]:
        sizes = _sizes(value)
        if sizes is None:
            raise refuse(node, "the size of its result is not known before it runs", "reshape to fixed sizes")
        return sizes

    def target(self, value: ir.Value, node: ir.Node) -> list[int]:
        """Returns the value's shape as RESHAPE takes it, with -1 for the batch."""
        return [-1 if size is None else size for size in self._known(value, node)]

    def reshape(self, tensor: Tensor, target: Sequence[int], shape: Sequence[int]) -> Tensor:
        if list(tensor.shape) == list(shape):
            return tensor
        return self.network.emit("RESHAPE", [tensor, self.network.integers(target)], shape)

    def transpose(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        shape = [tensor.shape[axis] for axis in order]
        return self.network.emit("TRANSPOSE", [tensor, self.network.integers(order)], shape)

    def reverse(self, tensor: Tensor, have: Image, want: Image) -> Tensor:
        """Converts (n, h, w, c) from one image form to another; an axis of one pixel needs no operation."""
        axes = [i + 1 for i in range(2) if have[i] != want[i] and tensor.shape[i + 1] > 1]
        if not axes:
            return tensor
        return self.network.emit("REVERSE_V2", [tensor, self.network.integers(axes)], tensor.shape)

    def _image_to_plain(self, tensor: Tensor) -> Tensor:
        n, h, w, c = tensor.shape
        # With one channel or one pixel the elements are in the same order in both layouts.
        if c == 1 or h == w == 1:
            return self.reshape(tensor, [-1, c, h, w], [n, c, h, w])
        return self.transpose(tensor, (0, 3, 1, 2))

    def _plain_to_image(self, tensor: Tensor) -> Tensor:
        n, c, h, w = tensor.shape
        if c == 1 or h == w == 1:
            return self.reshape(tensor, [-1, h, w, c], [n, h, w, c])
        return self.transpose(tensor, (0, 2, 3, 1))

    def _convert(self, tensor: Tensor, have: Form, want: Form) -> Tensor:
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
            raise TypeError(f"no value is brought from {have} to {want}")
        return self.reverse(self._plain_to_image(tensor), Image(), want)

    def fetch(self, value: ir.Value | None, node: ir.Node, form: Form = PLAIN) -> Tensor:
        """Returns a value in a form. Raises ExportError where it is missing or not a float tensor."""
        if value is None:
            raise refuse(node, "an input is missing", "update bnn_itrd")
        forms = self._forms.get(value)
        if forms is None:
            array = constant(value)
            if array is None or not np.issubdtype(array.dtype, np.floating):
                raise refuse(node, "it reads a value that is not a float tensor", "keep the network in floats")
            return self.network.constant(self.array(array, form))
        if form not in forms:
            home = self.home(value)
            forms[form] = self._convert(forms[home], home, form)
        return forms[form]

    def array(self, array: np.ndarray, form: Form) -> np.ndarray:
        """Returns a constant in a form, so that it broadcasts to values of that form."""
        if not isinstance(form, Image) or array.ndim == 0:
            return array
        full = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return reverse_array(rearrange(full, "n c h w -> n h w c"), form)

    def image_form(self, value: ir.Value) -> Image:
        """Returns the image form in which a value of rank 4 is fetched with the fewest conversions."""
        home = self.home(value)
        return home if isinstance(home, Image) else self.preferred
