"""All-pairs similarity of a group: how well each position matches the images of its group.

Three forms compute the same result:

- `einsum` holds the whole similarity matrix in memory, as in the paper.
- `blockwise` holds the similarity to one image's keys at a time.
- `pallas` is a single kernel for NVIDIA GPUs that keeps the similarity on the chip. On other
  devices it falls back to `blockwise`.

`auto` selects `pallas` for bfloat16, where it is the fastest on an H100, and `blockwise` for
float32 (docs/performance.md).

`blockwise` and `pallas` share a backward pass. It needs only the positions of the maxima, (N·S, M),
instead of the similarity matrix, (N·S, M·T).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gconet_jax.affinity_kernel import search as search_in_kernel
from gconet_jax.precision import precise_type


def group_affinity(
    query: jax.Array, key: jax.Array, valid: jax.Array, form: str = 'auto'
) -> jax.Array:
    """Return each position's best match in an image, averaged over the images of its group.

    Each position is compared with all positions of all images of its group, including its own
    image: an (N·S, N·S) similarity matrix. The maximum over each image's positions is kept, and
    the maxima are averaged over the images. GCoNet+, section 3.2 (GAM).

    Args:
      query: (G, N, S, D); G groups of N images with S positions each.
      key: (G, N, S, D).
      valid: (G, N) bool; False for padding images, which are left out of the mean.
      form: 'auto', 'einsum', 'blockwise' or 'pallas'.

    Returns:
      (G, N, S), unscaled, at least float32. Rows of padding images are finite but meaningless.
    """
    best = best_matches(query, key, form)
    weight = valid.astype(best.dtype)
    total = jnp.einsum('gnsm,gm->gns', best, weight, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(weight.sum(axis=-1), 1)[:, None, None]


def best_matches(query: jax.Array, key: jax.Array, form: str = 'auto') -> jax.Array:
    """Return the similarity of each query position to its best match in each image.

    Args:
      query: (G, N, S, D).
      key: (G, M, T, D).
      form: 'auto', 'einsum', 'blockwise' or 'pallas'.

    Returns:
      (G, N, S, M), at least float32. If two positions match equally well, `einsum` splits the
      gradient between them; the other forms give it to the first.
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


# (query (G, R, D), key (G, M, T, D)) -> best match (M, G, R), its position in T (M, G, R), integer.
Search = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def search_by_image(query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find the best matches one image of keys at a time: a `Search`.

    Only the similarity to one image, (G, R, T), is in memory at once.
    """
    positions = jnp.arange(key.shape[2], dtype=jnp.int32)
    least = jnp.uint8 if len(positions) <= 2**8 else jnp.int32

    def of_image(_: None, key: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        similarity = jnp.einsum(
            'grd,gtd->grt', query, key, preferred_element_type=precise_type(query.dtype)
        )
        best = similarity.max(axis=-1)
        # XLA's argmax is slower on CPUs.
        at = jnp.where(similarity == best[..., None], positions, len(positions)).min(axis=-1)
        return None, (best, at.astype(least))

    return jax.lax.scan(of_image, None, jnp.moveaxis(key, 1, 0))[1]


def search_on_gpu(query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find the best matches with the kernel on NVIDIA GPUs, else by image: a `Search`."""

    def by_image(query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        best, at = search_by_image(query, key)
        return best, at.astype(jnp.int32)

    return jax.lax.platform_dependent(query, key, cuda=search_in_kernel, default=by_image)


def _best(search: Search, query: jax.Array, key: jax.Array) -> jax.Array:
    """Return the best matches (M, G, R) of query (G, R, D) in key (G, M, T, D)."""

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
    """Return the gradients of query and key.

    Args:
      query: (G, R, D).
      key: (G, M, T, D).
      at: (M, G, R) integer, the positions in T of the best matches.
      weight: (M, G, R), the gradients of the best matches.
    """
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
