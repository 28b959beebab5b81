"""Builder of an ONNX graph: nodes, constants, and the layers that modules share."""

from typing import Any, NamedTuple

import numpy as np
import onnx
from flax import nnx
from onnx import helper, numpy_helper

from gconet_jax.errors import InputError
from gconet_jax.models.layers import ConvNorm

LARGEST_FILE_BYTES = 2**31 - 2**20  # limit of protobuf, minus room for the nodes


class Feature(NamedTuple):
    """A value of the graph that holds square features (N, C, size, size)."""

    name: str
    size: int


class Graph:
    """The nodes and constants of an ONNX graph.

    A value of the graph is given by its name, or as an array, which becomes a constant.
    """

    def __init__(self, model: nnx.Module):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._bytes = 0
        self._paths = {
            id(module): '.'.join(map(str, path)) for path, module in nnx.iter_modules(model)
        }

    def add(
        self, operator: str, *inputs: str | np.ndarray, output: str = '', **attributes: Any
    ) -> str:
        """Add a node and return the name of its output."""
        output = output or f'{operator}_{len(self.nodes)}'
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def constant(self, array: np.ndarray, name: str = '') -> str:
        """Add a constant and return its name.

        Raises:
            InputError: the constants exceed the size limit of an ONNX file.
        """
        name = name or f'constant_{len(self.constants)}'
        self._bytes += array.nbytes
        if self._bytes > LARGEST_FILE_BYTES:
            raise InputError(
                'the weights are larger than 2 GiB, the limit of an ONNX file. Export a network of '
                'smaller model.width, or StableHLO (.stablehlo)'
            )
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, conv: nnx.Conv, x: str) -> str:
        """Add `layers.Conv`."""
        path = self._paths[id(conv)]
        assert isinstance(conv.strides, int)
        assert conv.bias is not None
        kernel = np.asarray(conv.kernel[...], np.float32).transpose(3, 2, 0, 1)
        return self.add(
            'Conv',
            x,
            self.constant(np.ascontiguousarray(kernel), f'{path}.kernel'),
            self.constant(np.asarray(conv.bias[...], np.float32), f'{path}.bias'),
            output=path,
            strides=[conv.strides] * 2,
            pads=[kernel.shape[2] // 2] * 4,
        )

    def conv_norm(self, layer: ConvNorm, x: str) -> str:
        """Add `layers.ConvNorm` with its batch norm already folded."""
        assert layer.norm is None
        return self.conv(layer.conv, x)

    def conv_norm_relu(self, layer: ConvNorm, x: str) -> str:
        """Add `layers.ConvNormReLU` with its batch norm already folded."""
        return self.add('Relu', self.conv_norm(layer, x))

    def resize(self, x: Feature, size: int) -> Feature:
        """Add `models.resize.resize` to `size` x `size`."""
        if x.size == size:
            return x
        name = self.add(
            'Resize',
            x.name,
            '',
            '',
            np.array([size, size]),
            axes=[2, 3],
            mode='linear',
            coordinate_transformation_mode='align_corners',
        )
        return Feature(name, size)
