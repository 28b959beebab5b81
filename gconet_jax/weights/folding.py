"""Folding of batch norm into convolutions: the same maps with fewer operations."""

import jax
from flax import nnx

from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.models.layers import BATCH_NORM_EPSILON, BatchNorm, ConvNorm


def fold(model: GCoNetPlus) -> GCoNetPlus:
    """Return a copy of `model` without batch norm that computes the same maps at inference.

    A convolution W x + b, followed by batch norm with scale s, shift t, running mean m and running
    variance v, becomes a convolution with kernel W s / sqrt(v + eps) and bias
    (b - m) s / sqrt(v + eps) + t.
    """
    folded = nnx.merge(*nnx.split(model))
    for _, module in list(nnx.iter_modules(folded)):  # a list, because modules change below
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
