"""Layers with PyTorch's conventions, which the released weights assume."""

import functools
import math
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Model = TypeVar('Model', bound=nnx.Module)

BATCH_NORM_MOMENTUM = 0.9  # PyTorch writes it 0.1
BATCH_NORM_EPSILON = 1e-5

kaiming_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def uniform_fan_in(fan_in: int) -> nnx.Initializer:
    """PyTorch's default for the weights and biases of convolutions: U(-b, b), b = fan_in^-1/2."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A `size` x `size` convolution that keeps height and width, as PyTorch initialises it."""
    init = uniform_fan_in(inputs * size * size)
    return nnx.Conv(inputs, outputs, (size, size), kernel_init=init, bias_init=init, rngs=rngs)


def kaiming_conv(inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution with kaiming-normal weights (fan-out, ReLU) and zero biases."""
    return nnx.Conv(inputs, outputs, (size, size), kernel_init=kaiming_normal, rngs=rngs)


def along_channels(vector: jax.Array) -> jax.Array:
    """(C,) -> (1, 1, 1, C)."""
    return vector[None, None, None, :]


class BatchMoments(nnx.Variable):
    """Mean and unbiased variance of one call of a `BatchNorm`: a tuple of (mean, var), (C,) each.

    A forward pass only reads the running statistics and leaves these; the training step folds
    them in. So pairs of groups can run side by side and still update in the released order.
    """


class BatchNorm(nnx.Module):
    """Batch normalisation over the valid images of a batch, with PyTorch's unbiased variance."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.use_running_average = False

    def set_view(self, *, use_running_average: bool | None = None) -> None:
        """Serves `with_running_average`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Normalises x (B, H, W, C); valid (B,) bool says which images count."""
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            weight = valid.astype(x.dtype)
            count = jnp.maximum(weight.sum(), 1) * (x.shape[1] * x.shape[2])
            mean = jnp.einsum('b,bhwc->c', weight, x) / count
            var = jnp.einsum('b,bhwc->c', weight, jnp.square(x - along_channels(mean))) / count
            unbiased = var * (count / jnp.maximum(count - 1, 1))
            self.sow(BatchMoments, 'moments', (mean, unbiased))
        scale = self.scale[...] * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        return (x - along_channels(mean)) * along_channels(scale) + along_channels(self.bias[...])


def with_running_average(model: Model, use: bool = True) -> Model:
    """The model with the same arrays whose batch norms, if any, use their running statistics."""
    return nnx.view(model, use_running_average=use, raise_if_not_found=False)


@functools.cache
def interpolation_matrix(inputs: int, outputs: int) -> np.ndarray:
    """(outputs, inputs) float32: linear interpolation that maps end points to end points.

    PyTorch's `align_corners=True`, in one dimension. Rows sum to 1.
    """
    matrix = np.zeros((outputs, inputs), np.float32)
    scale = np.float32(inputs - 1) / np.float32(outputs - 1) if outputs > 1 else np.float32(0)
    position = np.arange(outputs, dtype=np.float32) * scale
    lower = np.minimum(position.astype(int), inputs - 1)
    upper = np.minimum(lower + 1, inputs - 1)
    fraction = position - lower.astype(np.float32)
    rows = np.arange(outputs)
    np.add.at(matrix, (rows, lower), 1 - fraction)
    np.add.at(matrix, (rows, upper), fraction)
    return matrix


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear resize of x (B, H, W, C) with aligned corners, as two matrix products."""
    if x.shape[1:3] == (height, width):
        return x
    x = jnp.einsum('hH,bHWc->bhWc', interpolation_matrix(x.shape[1], height), x)
    return jnp.einsum('wW,bhWc->bhwc', interpolation_matrix(x.shape[2], width), x)
