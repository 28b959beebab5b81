"""3 x 3 convolution with 16 instead of 36 multiplications per 2 x 2 outputs.

This is F(2 x 2, 3 x 3) of Winograd's minimal filtering (Lavin and Gray, CVPR 2016, section 4.1).
Along one axis, two neighbouring outputs are computed from four inputs and three taps with four
products. Along both axes, that makes 16 matrix products, each over all tiles of 2 x 2 outputs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

SIZE = 3  # of the kernel
TILE = 2  # outputs of a tile along an axis; heights and widths are multiples of it


def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve x with a 3 x 3 kernel, padded with zeros by 1.

    The result differs from a direct convolution by rounding only: in float32, by a few 1e-6 for
    outputs of magnitude 1.

    Args:
      x: (B, H, W, I), H and W even.
      kernel: (3, 3, I, O).

    Returns:
      (B, H, W, O).
    """
    b, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    products = [
        [tiles @ taps for tiles, taps in zip(_of_tiles(rows, 2), _of_taps(row), strict=True)]
        for rows, row in zip(_of_tiles(padded, 1), _of_taps(kernel), strict=True)
    ]
    # Each product is (B, H / 2, W / 2, O). Each row of products gives a tile's two columns; the
    # columns then give its two rows.
    columns = [_results(row) for row in products]
    tile = [_results(column) for column in zip(*columns, strict=True)]
    across = [jnp.stack(rows, axis=3) for rows in zip(*tile, strict=True)]
    return jnp.stack(across, axis=2).reshape(b, h, w, -1)


def _of_tiles(x: jax.Array, axis: int) -> tuple[jax.Array, ...]:
    """Transform the four inputs under each tile along `axis`; half as many positions remain."""
    even, odd = (jax.lax.slice_in_dim(x, first, x.shape[axis], TILE, axis=axis) for first in (0, 1))
    tiles = even.shape[axis] - 1
    (a, c), (b, d) = (
        [jax.lax.slice_in_dim(phase, i, i + tiles, axis=axis) for i in (0, 1)]
        for phase in (even, odd)
    )
    return a - c, b + c, c - b, b - d


def _of_taps(kernel: jax.Array) -> tuple[jax.Array, ...]:
    """Transform the three taps along the first axis into four."""
    first, middle, last = kernel
    ends = first + last
    return first, (ends + middle) / 2, (ends - middle) / 2, last


def _results(products: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Combine the four products of each tile along an axis into its two outputs."""
    a, b, c, d = products
    return a + b + c, b - c - d
