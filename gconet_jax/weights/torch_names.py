"""PyTorch's layer names and array layouts, common to all of its files."""

from collections.abc import Iterator

import numpy as np
from flax import nnx

from gconet_jax.models.layers import BatchNorm, ConvNorm
from gconet_jax.models.resnet import Bottleneck, ResNet50
from gconet_jax.models.vgg import VGG16

# Indices of the convolutions in torchvision's `features`, by stage.
VGG16_BN_INDICES = ((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40))
VGG16_INDICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))

Layer = nnx.Conv | nnx.Linear | BatchNorm


def backbone_layers(backbone: VGG16 | ResNet50) -> Iterator[tuple[str, str, Layer]]:
    """Yield (torchvision's name, released GCoNet+'s name, layer) for each layer with weights."""
    if isinstance(backbone, ResNet50):
        yield from _resnet_layers(backbone)
        return
    batch_norm = any(layer.norm is not None for stage in backbone.stages for layer in stage)
    indices = VGG16_BN_INDICES if batch_norm else VGG16_INDICES
    for number, (stage, of_stage) in enumerate(zip(backbone.stages, indices, strict=True), start=1):
        for layer, index in zip(stage, of_stage, strict=True):
            yield from _both(
                layer,
                (f'features.{index}', f'features.{index + 1}'),
                (f'bb.conv{number}.{index}', f'bb.conv{number}.{index + 1}'),
            )


def _resnet_layers(backbone: ResNet50) -> Iterator[tuple[str, str, Layer]]:
    first, *stages = backbone.stages
    yield from _both(first[0], ('conv1', 'bn1'), ('bb.conv1.0', 'bb.conv1.1'))
    for number, stage in enumerate(stages, start=1):
        for index, block in enumerate(stage):
            assert isinstance(block, Bottleneck)
            theirs, released = f'layer{number}.{index}', f'bb.conv{number + 1}.{index}'
            for layer, names in _bottleneck_layers(block):
                yield from _both(
                    layer,
                    (f'{theirs}.{names[0]}', f'{theirs}.{names[1]}'),
                    (f'{released}.{names[0]}', f'{released}.{names[1]}'),
                )


def _bottleneck_layers(block: Bottleneck) -> Iterator[tuple[ConvNorm, tuple[str, str]]]:
    yield block.first, ('conv1', 'bn1')
    yield block.middle, ('conv2', 'bn2')
    yield block.last, ('conv3', 'bn3')
    if block.skip is not None:
        yield block.skip, ('downsample.0', 'downsample.1')


def _both(
    layer: ConvNorm, torchvision: tuple[str, str], released: tuple[str, str]
) -> Iterator[tuple[str, str, Layer]]:
    """Yield the names and layer of the convolution and of its batch norm, if it has one."""
    yield torchvision[0], released[0], layer.conv
    if layer.norm is not None:
        yield torchvision[1], released[1], layer.norm


def layer_variables(name: str, layer: Layer) -> dict[str, nnx.Variable]:
    """Return the parameters and running statistics of the layer `name` by PyTorch's names."""
    if isinstance(layer, BatchNorm):
        return {
            f'{name}.weight': layer.scale,
            f'{name}.bias': layer.bias,
            f'{name}.running_mean': layer.mean,
            f'{name}.running_var': layer.var,
        }
    named: dict[str, nnx.Variable] = {f'{name}.weight': layer.kernel}
    if layer.bias is not None:
        named[f'{name}.bias'] = layer.bias
    return named


def from_torch(array: np.ndarray) -> np.ndarray:
    """Transpose OIHW to HWIO for convolutions, (out, in) to (in, out) for linear layers."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_torch(array: np.ndarray) -> np.ndarray:
    """Transpose back: the inverse of `from_torch`."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
