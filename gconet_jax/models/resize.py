"""Bilinear resizing of feature maps with aligned corners, along one axis after the other.

Along an axis it is a product with a small matrix with two numbers in each row. CPUs gather the two
neighbours instead, which is several times faster there (`benchmarks/resize.py`); other devices
multiply. `jax.lax.platform_dependent` chooses when a program is compiled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gconet_jax.interpolation import interpolation_matrix

NEIGHBOURS = 2  # numbers in a row that are not 0


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """x (B, H, W, C) -> (B, height, width, C), of the same type.

    As PyTorch's `interpolate(mode='bilinear', align_corners=True)`.
    """
    if x.shape[1:3] == (height, width):
        return x
    for axis, size in (1, height), (2, width):
        x = _resize_axis(x, axis, interpolation_matrix(x.shape[axis], size))
    return x


def _resize_axis(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """The gradient is that of the product on every platform.

    A training step spends a hundredth of its time in resizes, too little for another backward form.
    """
    product = functools.partial(multiplied, axis=axis, matrix=matrix)
    gather = functools.partial(gathered, axis=axis, matrix=matrix)

    @jax.custom_vjp
    def apply(x: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(x, cpu=gather, default=product)

    apply.defvjp(lambda x: jax.vjp(product, x), lambda transposed, gradient: transposed(gradient))
    return apply(x)


def multiplied(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """matrix (n, m) by x (B, H, W, C) along `axis`, 1 or 2, whose length is m."""
    letters = {1: 'nm,bmwc->bnwc', 2: 'nm,bhmc->bhnc'}[axis]
    return jnp.einsum(letters, jnp.asarray(matrix, x.dtype), x)


def gathered(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """`multiplied`, as a weighted sum of the neighbours that each row of `matrix` names."""
    columns = np.argsort(matrix == 0, axis=1, kind='stable')[:, :NEIGHBOURS]
    weights = np.take_along_axis(matrix, columns, axis=1)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    first, *second = (
        jnp.asarray(weight.reshape(shape), x.dtype) * x.take(column, axis, mode='clip')
        for weight, column in zip(weights.T, columns.T, strict=True)
    )
    return sum(second, start=first)
