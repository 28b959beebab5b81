"""Batch norm folded into the convolutions: the same maps from fewer operations."""

import jax
from flax import nnx

from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm, ConvNorm


def fold(model: GCoNetPlus) -> GCoNetPlus:
    """A network without batch norm that gives the maps of `model` under its running statistics.

    A convolution W x + b under scale s, shift t, mean m and variance v is a convolution with
    W s / sqrt(v + eps) and (b - m) s / sqrt(v + eps) + t.
    """
    folded = nnx.merge(*nnx.split(model))
    for _, module in list(nnx.iter_modules(folded)):  # which is changed on the way
        if isinstance(module, ConvNorm) and module.norm is not None:
            conv, norm = module.conv, module.norm
            bias = 0.0 if conv.bias is None else conv.bias[...]
            scale = _scale(norm)
            conv.kernel = nnx.Param(conv.kernel[...] * scale[None, None, None, :])
            conv.bias = nnx.Param((bias - norm.mean[...]) * scale + norm.bias[...])
            module.norm = None
    return folded


def _scale(norm: BatchNorm) -> jax.Array:
    return norm.scale[...] * jax.lax.rsqrt(norm.var[...] + BATCH_NORM_EPSILON)
