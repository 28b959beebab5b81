"""Bilinear resizing of feature maps with aligned corners, one axis at a time.

Along an axis, resizing is a product with a small matrix that has two non-zero elements per row. On
CPUs, the two neighbours are gathered instead, which is several times faster there
(`benchmarks/resize.py`). `jax.lax.platform_dependent` selects the form at compile time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gconet_jax.interpolation import interpolation_matrix

NEIGHBOURS = 2  # non-zero elements per row


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """Resize x (B, H, W, C) to (B, height, width, C), of the same type.

    Equivalent to PyTorch's `interpolate(mode='bilinear', align_corners=True)`.
    """
    if x.shape[1:3] == (height, width):
        return x
    for axis, size in (1, height), (2, width):
        x = _resize_axis(x, axis, interpolation_matrix(x.shape[axis], size))
    return x


def _resize_axis(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """Resize x along `axis` by `matrix`.

    The gradient is that of the matrix product on all platforms: resizing takes 1% of a training
    step, too little for a second backward form.
    """
    product = functools.partial(multiplied, axis=axis, matrix=matrix)
    gather = functools.partial(gathered, axis=axis, matrix=matrix)

    @jax.custom_vjp
    def apply(x: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(x, cpu=gather, default=product)

    apply.defvjp(lambda x: jax.vjp(product, x), lambda transposed, gradient: transposed(gradient))
    return apply(x)


def multiplied(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """Multiply `matrix` (n, m) with x (B, H, W, C) along `axis`, 1 or 2, of length m."""
    letters = {1: 'nm,bmwc->bnwc', 2: 'nm,bhmc->bhnc'}[axis]
    return jnp.einsum(letters, jnp.asarray(matrix, x.dtype), x)


def gathered(x: jax.Array, axis: int, matrix: np.ndarray) -> jax.Array:
    """Compute `multiplied` as a weighted sum of each row's two neighbours."""
    columns = np.argsort(matrix == 0, axis=1, kind='stable')[:, :NEIGHBOURS]
    weights = np.take_along_axis(matrix, columns, axis=1)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    first, *second = (
        jnp.asarray(weight.reshape(shape), x.dtype) * x.take(column, axis, mode='clip')
        for weight, column in zip(weights.T, columns.T, strict=True)
    )
    return sum(second, start=first)
