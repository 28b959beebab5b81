"""Bilinear resizing of feature maps with aligned corners, along one axis after the other.

Along an axis it is a product with a small matrix of which each row has two numbers. GPUs multiply;
CPUs gather the two neighbours, which is several times as fast there (`benchmarks/resize.py`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gconet_jax.interpolation import interpolation_matrix
from gconet_jax.target import target

MOST = 2  # numbers in a row that are not 0


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """x (B, H, W, C) -> (B, height, width, C), of the same type.

    As PyTorch's `interpolate(mode='bilinear', align_corners=True)`.
    """
    if x.shape[1:3] == (height, width):
        return x
    form = gathered if target() == 'cpu' else multiplied
    for axis, size in (1, height), (2, width):
        x = form(x, axis, interpolation_matrix(x.shape[axis], size))
    return x


def multiplied(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """matrix (n, m) by x (B, H, W, C) along `axis`, 1 or 2, whose length is m."""
    letters = {1: 'nm,bmwc->bnwc', 2: 'nm,bhmc->bhnc'}[axis]
    return jnp.einsum(letters, jnp.asarray(matrix, x.dtype), x)


def gathered(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """`multiplied`, by a gather for each of the numbers that a row has at most.

    Where a gradient is asked for it multiplies all the same: of a training step, resizes are too
    little to be worth another transpose.
    """

    @jax.custom_vjp
    def apply(x: jax.Array) -> jax.Array:
        columns = np.argsort(matrix == 0, axis=1, kind='stable')[:, :MOST]
        weights = np.take_along_axis(matrix, columns, axis=1)
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        first, *second = (
            jnp.asarray(weight.reshape(shape), x.dtype) * x.take(column, axis, mode='clip')
            for weight, column in zip(weights.T, columns.T, strict=True)
        )
        return sum(second, start=first)

    def forward(x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], tuple[jax.Array]]]:
        return jax.vjp(lambda x: multiplied(x, axis, matrix), x)

    apply.defvjp(forward, lambda transposed, gradient: transposed(gradient))
    return apply(x)
