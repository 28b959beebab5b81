"""The 3 x 3 convolution with 16 multiplications where it has 36.

F(2 x 2, 3 x 3) of Winograd's minimal filtering (Lavin and Gray, CVPR 2016, section 4.1): two
neighbouring results along an axis come from four numbers and three taps by four products. Along
both axes that makes 16 matrix products of all tiles of 2 x 2 results at once.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

SIZE = 3  # of the kernel
TILE = 2  # results along an axis; heights and widths are multiples of it


def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x (B, H, W, I), H and W even, kernel (3, 3, I, O) -> (B, H, W, O), zeros around x.

    Equal to the convolution but for rounding: in float32 a few 1e-6 of results of size 1.
    """
    b, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    products = [
        [tiles @ taps for tiles, taps in zip(_of_tiles(rows, 2), _of_taps(row), strict=True)]
        for rows, row in zip(_of_tiles(padded, 1), _of_taps(kernel), strict=True)
    ]
    # Of each row of products, (B, H / 2, W / 2, O) each, the two columns of a tile; then its rows.
    columns = [_results(row) for row in products]
    tile = [_results(column) for column in zip(*columns, strict=True)]
    across = [jnp.stack(rows, axis=3) for rows in zip(*tile, strict=True)]
    return jnp.stack(across, axis=2).reshape(b, h, w, -1)


def _of_tiles(x: jax.Array, axis: int) -> tuple[jax.Array, ...]:
    """Four combinations of the four neighbours under each tile, half as many along `axis`."""
    even, odd = (jax.lax.slice_in_dim(x, first, x.shape[axis], TILE, axis=axis) for first in (0, 1))
    tiles = even.shape[axis] - 1
    (a, c), (b, d) = (
        [jax.lax.slice_in_dim(phase, i, i + tiles, axis=axis) for i in (0, 1)]
        for phase in (even, odd)
    )
    return a - c, b + c, c - b, b - d


def _of_taps(kernel: jax.Array) -> tuple[jax.Array, ...]:
    """Four combinations of the three taps along the first axis."""
    first, middle, last = kernel
    ends = first + last
    return first, (ends + middle) / 2, (ends - middle) / 2, last


def _results(products: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """The two results of a tile along an axis from its four products."""
    a, b, c, d = products
    return a + b + c, b - c - d
