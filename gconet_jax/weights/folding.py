"""Batch norm folded into the convolutions: the same maps from fewer operations."""

import dataclasses
from collections.abc import Iterator

import jax
from flax import nnx

from gconet_jax.models.decoder import ConvNorm
from gconet_jax.models.gconet_plus import GCoNetPlus, abstract_model
from gconet_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm, Conv
from gconet_jax.models.vgg import VGGLayer


def fold(model: GCoNetPlus) -> GCoNetPlus:
    """A network without batch norm that gives the maps of `model` under its running statistics.

    A convolution W x + b under scale s, shift t, mean m and variance v is a convolution with
    W s / sqrt(v + eps) and (b - m) s / sqrt(v + eps) + t.
    """
    config = dataclasses.replace(model.config, backbone='vgg16', batch_norm=False)
    folded = abstract_model(config)
    weights = dict(_convolutions(model))
    for path, module in nnx.iter_modules(folded):
        if isinstance(module, (nnx.Conv, nnx.Linear)):
            kernel, bias = weights[path]
            module.kernel.set_value(kernel)
            assert module.bias is not None
            module.bias.set_value(bias)
    return folded


def _convolutions(model: GCoNetPlus) -> Iterator[tuple[tuple, tuple[jax.Array, jax.Array]]]:
    """The path of each layer with weights, and its kernel and bias with the batch norm after it."""
    norms: dict[tuple, BatchNorm | None] = {
        (*path, 'conv'): module.norm
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (ConvNorm, VGGLayer))
    }
    for path, module in nnx.iter_modules(model):
        if isinstance(module, (Conv, nnx.Linear)):
            assert module.bias is not None
            kernel, bias, norm = module.kernel[...], module.bias[...], norms.get(path)
            yield path, (kernel, bias) if norm is None else _folded(kernel, bias, norm)


def _folded(kernel: jax.Array, bias: jax.Array, norm: BatchNorm) -> tuple[jax.Array, jax.Array]:
    scale = norm.scale[...] * jax.lax.rsqrt(norm.var[...] + BATCH_NORM_EPSILON)
    return kernel * scale[None, None, None, :], (bias - norm.mean[...]) * scale + norm.bias[...]
