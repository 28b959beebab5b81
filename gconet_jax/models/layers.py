"""Layers with PyTorch's conventions, which the released weights assume.

Parameters are float32. Convolutions compute in the type of their input; operations that are
sensitive to rounding compute in float32 or better (`precise`).
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

BATCH_NORM_MOMENTUM = 0.9  # 0.1 in PyTorch's convention
BATCH_NORM_EPSILON = 1e-5

CONV = 'convolution'  # checkpoint name of the outputs of convolutions, for `Rematerialized`

kaiming_normal = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def uniform_fan_in(fan_in: int) -> nnx.Initializer:
    """Return PyTorch's default initialiser for convolutions: U(-b, b), b = fan_in^-1/2."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nnx.Conv):
    """A `size` x `size` convolution with half-kernel padding; its output is named `CONV`."""

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
        """Convolve (B, H, W, I) to (B, ceil(H / stride), ceil(W / stride), O), of the same type."""
        del out_sharding
        kernel = self.kernel[...].astype(inputs.dtype)
        assert isinstance(self.strides, int)
        outputs = convolve(inputs, kernel, self.strides)
        if self.bias is not None:
            outputs += along_channels(self.bias[...].astype(inputs.dtype))
        return checkpoint_name(outputs, CONV)


def conv(inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs) -> Conv:
    """Create a convolution with PyTorch's default initialisation."""
    init = uniform_fan_in(inputs * size * size)
    return Conv(inputs, outputs, size, init, init, rngs)


def kaiming_conv(
    inputs: int, outputs: int, size: int, *, stride: int = 1, bias: bool = True, rngs: nnx.Rngs
) -> Conv:
    """Create a convolution with kaiming-normal weights (fan-out, ReLU) and zero biases."""
    zeros = nnx.initializers.zeros
    return Conv(inputs, outputs, size, kaiming_normal, zeros, rngs, stride=stride, bias=bias)


def along_channels(vector: jax.Array) -> jax.Array:
    """Reshape (C,) to (1, 1, 1, C)."""
    return vector[None, None, None, :]


class Rematerialized(nnx.Module):
    """A module that can save memory by recomputing activations in the backward pass.

    Attributes:
      remat: which activations of a part are kept: 'none', all of them (no rematerialisation);
        'light', the outputs of convolutions; 'full', only the part's inputs.
    """

    remat = 'none'

    def set_view(self, *, remat: str | None = None) -> None:
        """Set `remat`; called by `nnx.view` in `with_remat`."""
        if remat is not None:
            self.remat = remat

    def rematerialized(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `part`, a function of a module and arrays, in rematerialisation by `remat`."""
        if self.remat == 'none':
            return part
        light = jax.checkpoint_policies.save_only_these_names(CONV)
        policy = light if self.remat == 'light' else None
        return nnx.remat(part, policy=policy, graph_updates=False)


class BatchMoments(nnx.Variable):
    """Mean and unbiased variance from one call of a `BatchNorm`: (mean, var), (C,) each.

    A forward pass records these and does not change the running statistics; the training step
    updates them afterwards. Pairs of groups can therefore run in parallel, while the updates keep
    the order of the released code.
    """


class BatchNorm(nnx.Module):
    """Batch norm over the valid images; as in PyTorch, the running variance is unbiased."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.use_running_average = False

    def set_view(self, *, use_running_average: bool | None = None) -> None:
        """Set `use_running_average`; called by `nnx.view` in `with_running_average`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Normalise x (B, H, W, C) with the statistics of the images where valid (B,) is True."""
        given = x.dtype
        x = precise(x)
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            weight = valid.astype(x.dtype)
            count = jnp.maximum(weight.sum(), 1) * (x.shape[1] * x.shape[2])
            # GPUs and TPUs would round the inputs of this dot product at default precision.
            total = functools.partial(jnp.einsum, 'b,bhwc->c', precision=jax.lax.Precision.HIGHEST)
            mean = total(weight, x) / count
            var = total(weight, jnp.square(x - along_channels(mean))) / count
            unbiased = var * (count / jnp.maximum(count - 1, 1))
            self.sow(BatchMoments, 'moments', (mean, unbiased))
        scale = self.scale[...] * jax.lax.rsqrt(var + BATCH_NORM_EPSILON)
        x = (x - along_channels(mean)) * along_channels(scale) + along_channels(self.bias[...])
        return x.astype(given)


class ConvNorm(nnx.Module):
    """A convolution with optional batch norm."""

    def __init__(self, conv: Conv, *, norm: bool):
        self.conv = conv
        self.norm = BatchNorm(conv.out_features) if norm else None

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Map x (B, H, W, I), valid (B,) bool to (B, h, w, O)."""
        x = self.conv(x)
        return x if self.norm is None else self.norm(x, valid)


class ConvNormReLU(ConvNorm):
    """A convolution with optional batch norm, then ReLU."""

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Map x (B, H, W, I), valid (B,) bool to (B, h, w, O)."""
        return nnx.relu(super().__call__(x, valid))


def conv_norm(inputs: int, outputs: int, size: int, *, norm: bool, rngs: nnx.Rngs) -> ConvNorm:
    """Create a convolution with PyTorch's default initialisation and optional batch norm."""
    return ConvNorm(conv(inputs, outputs, size, rngs=rngs), norm=norm)


def with_running_average(model: Model, use: bool = True) -> Model:
    """Return a view of the model, sharing its arrays, whose batch norms use running statistics.

    With `use` False they use batch statistics. The model may have no batch norm.
    """
    return nnx.view(model, use_running_average=use, raise_if_not_found=False)


def with_remat(model: Model, remat: str) -> Model:
    """Return a view of the model, sharing its arrays, that rematerialises by `remat`."""
    return nnx.view(model, remat=remat)


def run(modules: Sequence[Callable[..., jax.Array]], x: jax.Array, valid: jax.Array) -> jax.Array:
    """Apply modules in sequence; each takes x (B, H, W, C) and valid (B,)."""
    for module in modules:
        x = module(x, valid)
    return x


def halve(x: jax.Array) -> jax.Array:
    """Max-pool x (B, H, W, C) by 2 x 2 to (B, H / 2, W / 2, C).

    The barrier keeps XLA from fusing the pooling with the convolution that follows. On CPUs, that
    fusion returns garbage in bfloat16 under JAX 0.11 and 0.12. Elsewhere the barrier costs nothing,
    because a convolution reads its input from memory anyway.
    """
    return jax.lax.optimization_barrier(nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2)))


# Images come before groups in the merged axis, so that an images axis that is sharded over devices
# stays sharded. A convolution of (G, N, ...) would flatten the axes the other way round.


def together(x: jax.Array) -> jax.Array:
    """Merge the groups and images axes: (G, N, ...) -> (N·G, ...)."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def apart(x: jax.Array, groups: tuple[int, ...]) -> jax.Array:
    """Undo `together`: (N·G, ...) -> (G, N, ...), for groups = (G, N)."""
    return x.reshape(groups[1], groups[0], *x.shape[1:]).swapaxes(0, 1)
