"""The all-pairs similarity of a group: how well each position is found in the other images.

Three forms compute the same. `einsum` holds the whole similarity in memory, as the paper writes it.
`blockwise` holds that of one image's keys at a time. `pallas` is one kernel for NVIDIA GPUs, in
which the similarity never leaves the chip; on other devices it is `blockwise`. The last two share a
backward pass, which follows the positions of the maxima: (N·S, M) of them, where the matrix has
(N·S, M·T). `auto` is `pallas` for bfloat16, where it is the fastest on an H100, and `blockwise` for
float32 (docs/performance.md).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gconet_jax.affinity_kernel import search as search_in_kernel
from gconet_jax.precision import precise_type


def group_affinity(
    query: jax.Array, key: jax.Array, valid: jax.Array, form: str = 'auto'
) -> jax.Array:
    """Mean over a group's images of the best match of each position in them.

    A position of image n is compared with every position of every image m of its group (its own
    included): the (N·S, N·S) similarity, of which the maximum over the positions of each m is
    kept. GCoNet+, section 3.2 (GAM).

    Args:
      query: (G, N, S, D); G groups of N images with S positions each.
      key: (G, N, S, D).
      valid: (G, N) bool; images that are padding are no match for anyone.
      form: 'auto', 'einsum', 'blockwise' or 'pallas'.

    Returns:
      (G, N, S), unscaled, in float32 even for smaller inputs. Rows of padding images are finite and
      mean nothing.
    """
    best = best_matches(query, key, form)
    weight = valid.astype(best.dtype)
    total = jnp.einsum('gnsm,gm->gns', best, weight, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(weight.sum(axis=-1), 1)[:, None, None]


def best_matches(query: jax.Array, key: jax.Array, form: str = 'auto') -> jax.Array:
    """The best match of each position in each image.

    Args:
      query: (G, N, S, D).
      key: (G, M, T, D).
      form: 'auto', 'einsum', 'blockwise' or 'pallas'.

    Returns:
      (G, N, S, M), float32 even for smaller inputs. Where two positions match equally well, the
      gradient goes to both by halves (`einsum`) or to the first (the others).
    """
    if form == 'einsum':
        similarity = jnp.einsum(
            'gnsd,gmtd->gnsmt', query, key, preferred_element_type=precise_type(query.dtype)
        )
        return similarity.max(axis=-1)
    g, n, s, d = query.shape
    in_kernel = form == 'pallas' or (form == 'auto' and query.dtype == jnp.bfloat16)
    search = search_on_gpu if in_kernel else search_by_image
    best = _best(search, query.reshape(g, n * s, d), key)
    return jnp.moveaxis(best, 0, -1).reshape(g, n, s, key.shape[1])


# (query (G, R, D), key (G, M, T, D)) -> the best match (M, G, R) and its position in T, integers.
Search = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def search_by_image(query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A `Search`: (G, R, T) of the similarity in memory, of one image of keys after another."""
    positions = jnp.arange(key.shape[2], dtype=jnp.int32)
    least = jnp.uint8 if len(positions) <= 2**8 else jnp.int32

    def of_image(_: None, key: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        similarity = jnp.einsum(
            'grd,gtd->grt', query, key, preferred_element_type=precise_type(query.dtype)
        )
        best = similarity.max(axis=-1)
        # XLA's own argmax is slower on CPUs.
        at = jnp.where(similarity == best[..., None], positions, len(positions)).min(axis=-1)
        return None, (best, at.astype(least))

    return jax.lax.scan(of_image, None, jnp.moveaxis(key, 1, 0))[1]


def search_on_gpu(query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A `Search`: the kernel on NVIDIA GPUs, `search_by_image` elsewhere."""

    def by_image(query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        best, at = search_by_image(query, key)
        return best, at.astype(jnp.int32)

    return jax.lax.platform_dependent(query, key, cuda=search_in_kernel, default=by_image)


def _best(search: Search, query: jax.Array, key: jax.Array) -> jax.Array:
    """query (G, R, D), key (G, M, T, D) -> (M, G, R)."""

    @jax.custom_vjp
    def best(query: jax.Array, key: jax.Array) -> jax.Array:
        return search(query, key)[0]

    def forward(query: jax.Array, key: jax.Array):
        best, at = search(query, key)
        return best, (query, key, at)

    def backward(kept: tuple[jax.Array, ...], weight: jax.Array):
        query, key, at = kept
        return _scatter(query, key, at, weight)

    best.defvjp(forward, backward)
    return best(query, key)


def _scatter(
    query: jax.Array, key: jax.Array, at: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of query and key, for gradients `weight` (M, G, R) of the matches found `at`."""
    groups = jnp.arange(query.shape[0], dtype=jnp.int32)[:, None]
    precise = query.astype(weight.dtype)

    def of_image(total: jax.Array, image: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        key, at, weight = image
        at, weight = at.astype(jnp.int32), weight[..., None]
        total += weight * key[groups, at].astype(weight.dtype)
        zero = jnp.zeros(key.shape, weight.dtype)
        return total, zero.at[groups, at].add(weight * precise).astype(key.dtype)

    images = jnp.moveaxis(key, 1, 0), at, weight
    total, of_keys = jax.lax.scan(of_image, jnp.zeros_like(precise), images)
    return total.astype(query.dtype), jnp.moveaxis(of_keys, 0, 1)
