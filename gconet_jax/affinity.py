"""The all-pairs similarity of a group: how well each position is found in the other images."""

import jax
import jax.numpy as jnp

from gconet_jax.models.layers import precise_type


def group_affinity(query: jax.Array, key: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean over a group's images of the best match of each position in them.

    A position of image n is compared with every position of every image m of its group (its own
    included): the (N·S, N·S) similarity, of which the maximum over the positions of each m is
    kept. GCoNet+, section 3.2 (GAM).

    Args:
      query: (G, N, S, D); G groups of N images with S positions each.
      key: (G, N, S, D).
      valid: (G, N) bool; images that are padding are no match for anyone.

    Returns:
      (G, N, S), unscaled, in float32 even for smaller inputs. Rows of padding images are finite and
      mean nothing.
    """
    best = best_matches(query, key)
    weight = valid.astype(best.dtype)
    total = jnp.einsum('gnsm,gm->gns', best, weight, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(weight.sum(axis=-1), 1)[:, None, None]


def best_matches(query: jax.Array, key: jax.Array) -> jax.Array:
    """(G, N, S, D) by (G, M, T, D): the best match of each position in each image, (G, N, S, M)."""
    similarity = jnp.einsum(
        'gnsd,gmtd->gnsmt', query, key, preferred_element_type=precise_type(query.dtype)
    )
    return similarity.max(axis=-1)
