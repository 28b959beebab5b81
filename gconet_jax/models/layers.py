"""Layers with PyTorch's conventions, which the released weights assume.

Convolutions compute in the type of their input, with float32 parameters; what is sensitive to
rounding is computed by `precise` numbers whatever the type of the input.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from gconet_jax.models.convolution import convolve
from gconet_jax.precision import precise

Model = TypeVar('Model', bound=nnx.Module)

BATCH_NORM_MOMENTUM = 0.9  # PyTorch writes it 0.1
BATCH_NORM_EPSILON = 1e-5

CONV = 'convolution'  # names the results of convolutions for `Rematerialized`

kaiming_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def uniform_fan_in(fan_in: int) -> nnx.Initializer:
    """PyTorch's default for the weights and biases of convolutions: U(-b, b), b = fan_in^-1/2."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nnx.Conv):
    """A `size` x `size` convolution, padded by half of it; its result is named `CONV`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        kernel_init: nnx.Initializer,
        bias_init: nnx.Initializer,
        rngs: nnx.Rngs,
        *,
        stride: int = 1,
        bias: bool = True,
    ):
        super().__init__(
            inputs,
            outputs,
            (size, size),
            strides=stride,
            use_bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            rngs=rngs,
        )

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """(B, H, W, I) -> (B, ceil(H / stride), ceil(W / stride), O), of the same type."""
        del out_sharding
        kernel = self.kernel[...].astype(inputs.dtype)
        assert isinstance(self.strides, int)
        outputs = convolve(inputs, kernel, self.strides)
        if self.bias is not None:
            outputs += along_channels(self.bias[...].astype(inputs.dtype))
        return checkpoint_name(outputs, CONV)


def conv(inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs) -> Conv:
    """A convolution as PyTorch initialises it."""
    init = uniform_fan_in(inputs * size * size)
    return Conv(inputs, outputs, size, init, init, rngs)


def kaiming_conv(
    inputs: int, outputs: int, size: int, *, stride: int = 1, bias: bool = True, rngs: nnx.Rngs
) -> Conv:
    """A convolution with kaiming-normal weights (fan-out, ReLU) and, if any, zero biases."""
    zeros = nnx.initializers.zeros
    return Conv(inputs, outputs, size, kaiming_normal, zeros, rngs, stride=stride, bias=bias)


def along_channels(vector: jax.Array) -> jax.Array:
    """(C,) -> (1, 1, 1, C)."""
    return vector[None, None, None, :]


class Rematerialized(nnx.Module):
    """A module whose parts the backward pass may compute again instead of keeping their insides.

    Attributes:
      remat: 'none': everything is kept; 'light': inside of a part only the results of its
        convolutions; 'full': nothing but what goes in.
    """

    remat = 'none'

    def set_view(self, *, remat: str | None = None) -> None:
        """Serves `with_remat`."""
        if remat is not None:
            self.remat = remat

    def rematerialized(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """`part`, a function of a module and arrays, so that its insides are not all kept."""
        if self.remat == 'none':
            return part
        light = jax.checkpoint_policies.save_only_these_names(CONV)
        policy = light if self.remat == 'light' else None
        return nnx.remat(part, policy=policy, graph_updates=False)


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
        given = x.dtype
        x = precise(x)
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            weight = valid.astype(x.dtype)
            count = jnp.maximum(weight.sum(), 1) * (x.shape[1] * x.shape[2])
            # A dot product, which GPUs and TPUs round at their default precision.
            total = functools.partial(jnp.einsum, 'b,bhwc->c', precision=jax.lax.Precision.HIGHEST)
            mean = total(weight, x) / count
            var = total(weight, jnp.square(x - along_channels(mean))) / count
            unbiased = var * (count / jnp.maximum(count - 1, 1))
            self.sow(BatchMoments, 'moments', (mean, unbiased))
        scale = self.scale[...] * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        x = (x - along_channels(mean)) * along_channels(scale) + along_channels(self.bias[...])
        return x.astype(given)


class ConvNorm(nnx.Module):
    """A convolution and, if there is one, batch norm."""

    def __init__(self, conv: Conv, *, norm: bool):
        self.conv = conv
        self.norm = BatchNorm(conv.out_features) if norm else None

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """x (B, H, W, I), valid (B,) bool -> (B, h, w, O)."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x, valid)


class ConvNormReLU(ConvNorm):
    """`ConvNorm`, then ReLU."""

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """x (B, H, W, I), valid (B,) bool -> (B, h, w, O)."""
        return nnx.relu(super().__call__(x, valid))


def conv_norm(inputs: int, outputs: int, size: int, *, norm: bool, rngs: nnx.Rngs) -> ConvNorm:
    """A convolution as PyTorch initialises it and, if there is one, batch norm."""
    return ConvNorm(conv(inputs, outputs, size, rngs=rngs), norm=norm)


def with_running_average(model: Model, use: bool = True) -> Model:
    """The model with the same arrays whose batch norms, if any, use their running statistics."""
    return nnx.view(model, use_running_average=use, raise_if_not_found=False)


def with_remat(model: Model, remat: str) -> Model:
    """The model with the same arrays, for which the backward pass keeps less."""
    return nnx.view(model, remat=remat)


def run(modules: Sequence[Callable[..., jax.Array]], x: jax.Array, valid: jax.Array) -> jax.Array:
    """x through modules that take images (B, H, W, C) and valid (B,), one after another."""
    for module in modules:
        x = module(x, valid)
    return x


def halve(x: jax.Array) -> jax.Array:
    """x (B, H, W, C) -> (B, H / 2, W / 2, C): the maximum of each 2 x 2 pixels.

    The barrier keeps XLA for CPUs from fusing the maximum with the convolution that follows, which
    returns garbage in bfloat16 under JAX 0.11 and 0.12. A convolution reads its input from memory
    in any case, so the barrier costs nothing elsewhere.
    """
    return jax.lax.optimization_barrier(nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2)))


# Images go before groups when the two axes become one: so that an axis of images that is spread
# over devices stays spread. A convolution of (G, N, ...) would flatten them the other way.


def together(x: jax.Array) -> jax.Array:
    """(G, N, ...) -> (N·G, ...)."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def apart(x: jax.Array, groups: tuple[int, ...]) -> jax.Array:
    """(N·G, ...) -> (G, N, ...), for groups = (G, N)."""
    return x.reshape(groups[1], groups[0], *x.shape[1:]).swapaxes(0, 1)
