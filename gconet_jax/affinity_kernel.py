"""The best-match search as one Pallas kernel for Triton; the similarity stays in registers.

Each program handles a tile of queries and the keys of one image. It loops over tiles of keys, sums
each tile of the similarity over slices of the features, and keeps the maximum and its position.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from gconet_jax.precision import precise_type

# Tile sizes; Triton requires powers of two.
QUERIES, KEYS, FEATURES = 128, 64, 64


def search(
    query: jax.Array, key: jax.Array, *, interpret: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Return the best match of each query in each image, and its position in that image.

    Args:
      query: (G, R, D), float32 or bfloat16. float32 is multiplied in full float32; products of
        bfloat16 are summed in float32.
      key: (G, M, T, D), of the same type.
      interpret: run without a GPU, slowly; for tests.

    Returns:
      The best match, at least float32, and its position in T, int32; (M, G, R) each.
    """
    (groups, rows, _), (_, images, positions, _) = query.shape, key.shape
    query = _padded(query, (1, QUERIES, FEATURES))
    key = _padded(key, (1, 1, KEYS, FEATURES))
    kind = precise_type(query.dtype)
    out = pl.BlockSpec((None, None, QUERIES), lambda g, r, m: (m, g, r))
    shape = images, groups, query.shape[1]
    best, at = pl.pallas_call(
        functools.partial(_kernel, positions=positions),
        grid=(groups, query.shape[1] // QUERIES, images),
        in_specs=[
            pl.BlockSpec((None, QUERIES, query.shape[2]), lambda g, r, m: (g, r, 0)),
            pl.BlockSpec((None, None, *key.shape[2:]), lambda g, r, m: (g, m, 0, 0)),
        ],
        out_specs=(out, out),
        out_shape=(jax.ShapeDtypeStruct(shape, kind), jax.ShapeDtypeStruct(shape, jnp.int32)),
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name='best_matches',
    )(query, key)
    return best[..., :rows], at[..., :rows]


def _kernel(query, key, best, at, *, positions: int) -> None:
    """Search one image of keys for one tile of queries.

    Args:
      query: ref (QUERIES, D).
      key: ref (T, D), padded; only the first `positions` rows are keys.
      best: output ref (QUERIES,), the best match.
      at: output ref (QUERIES,), its position.
      positions: number of keys.
    """
    kind = best.dtype
    exact = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None

    def tile(i, found):
        def slice_of_features(j, similarity):
            features = pl.ds(j * FEATURES, FEATURES)
            return similarity + jax.lax.dot_general(
                query[:, features],
                key[pl.ds(i * KEYS, KEYS), features],
                (((1,), (1,)), ((), ())),
                precision=exact,
                preferred_element_type=kind,
            )

        similarity = jnp.zeros((QUERIES, KEYS), kind)
        similarity = jax.lax.fori_loop(0, query.shape[1] // FEATURES, slice_of_features, similarity)
        place = i * KEYS + jax.lax.broadcasted_iota(jnp.int32, similarity.shape, 1)
        similarity = jnp.where(place < positions, similarity, -jnp.inf)
        here = similarity.max(axis=1)
        first = jnp.where(similarity == here[:, None], place, positions).min(axis=1)
        best, at = found
        return jnp.maximum(best, here), jnp.where(here > best, first, at)

    nothing = jnp.full((QUERIES,), -jnp.inf, kind), jnp.zeros((QUERIES,), jnp.int32)
    best[...], at[...] = jax.lax.fori_loop(0, key.shape[0] // KEYS, tile, nothing)


def _padded(x: jax.Array, tiles: tuple[int, ...]) -> jax.Array:
    """Zero-pad each axis of x at its end to a multiple of its entry in `tiles`."""
    ends = [math.ceil(n / tile) * tile - n for n, tile in zip(x.shape, tiles, strict=True)]
    return jnp.pad(x, [(0, end) for end in ends])
