"""The network in parts, each compiled for a few images: a group of any size runs in their memory.

Without batch norm (`weights.folding`) an image meets its group only in the GAM: through the matches
of its positions in the other images, and through the group's mean, the consensus. So features are
made for some images at a time, similarities for a block of images by a block of images, and maps
again for some images at a time.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gconet_jax.affinity import best_matches
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize

Features = tuple[jax.Array, ...]  # x1 to x5 of B images

BLOCK = 8  # images by images of which similarities exist at once


class Confidence(NamedTuple):
    """What becomes the map of B images, (B, H, W) each: sigmoid(k (P - T)), or P without CEM."""

    prob: jax.Array
    thresh: jax.Array


class Stages:
    """The parts of one network, which has no batch norm."""

    def __init__(self, model: GCoNetPlus, device: Any = None):
        self.config = model.config
        self._graph, weights = nnx.split(model)
        self._weights = jax.device_put(weights, device)

    def encode(self, images: np.ndarray) -> Features:
        """uint8 (B, H, W, 3), H and W multiples of 16, to features."""
        return _encode(self._graph, self._weights, images)

    def consensus(self, x5: jax.Array | np.ndarray) -> jax.Array:
        """What a group of n images (n, h, w, C) has in common: (C,)."""
        if not self.config.gam:
            return jnp.ones(x5.shape[-1])
        n = len(x5)
        x5 = np.pad(x5, [(0, -n % BLOCK), (0, 0), (0, 0), (0, 0)])
        blocks = [x5[i : i + BLOCK] for i in range(0, len(x5), BLOCK)]
        valid = np.split(np.arange(len(x5)) < n, len(blocks))
        projected = [_project(self._graph, self._weights, block) for block in blocks]
        total = jnp.zeros(x5.shape[-1])
        for (query, _), block, counted in zip(projected, blocks, valid, strict=True):
            best = jnp.zeros(query.shape[1:3])
            for (_, key), of_key in zip(projected, valid, strict=True):
                best = _add_matches(best, query, key, of_key)
            total = _add_attended(self._graph, self._weights, total, best / n, block, counted)
        return total / n

    def decode(self, features: Features, shared: jax.Array | np.ndarray) -> Confidence:
        """Features of B images under the consensus of the group of each, (B, C)."""
        return _decode(self._graph, self._weights, features, shared)


@functools.partial(jax.jit, static_argnums=0)
def _encode(graph: nnx.GraphDef, weights: Any, images: jax.Array) -> Features:
    valid = jnp.ones((1, len(images)), bool)
    return nnx.merge(graph, weights).encode(normalize(images)[None], valid)


@functools.partial(jax.jit, static_argnums=0)
def _project(graph: nnx.GraphDef, weights: Any, x5: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Queries and keys (1, B, h·w, C)."""
    return nnx.merge(graph, weights).gam.project(x5[None])


@jax.jit
def _add_matches(total: jax.Array, query: jax.Array, key: jax.Array, valid: jax.Array) -> jax.Array:
    """Adds to (B, S) the best match of each position in each of the valid images of `key`."""
    best = best_matches(query, key)[0]
    return total + jnp.where(valid[None, None], best, 0).sum(axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def _add_attended(
    graph: nnx.GraphDef,
    weights: Any,
    total: jax.Array,
    affinity: jax.Array,
    x5: jax.Array,
    valid: jax.Array,
) -> jax.Array:
    """Adds to (C,) the means over positions of the attended features of the valid images."""
    gam = nnx.merge(graph, weights).gam
    attended = gam.attend(x5[None], gam.attention(affinity[None], x5.shape[1:3]))[0]
    means = attended.astype(jnp.float32).mean(axis=(1, 2))
    return total + jnp.where(valid[:, None], means, 0).sum(axis=0)


@functools.partial(jax.jit, static_argnums=0)
def _decode(graph: nnx.GraphDef, weights: Any, features: Features, shared: jax.Array) -> Confidence:
    weighted = features[-1] * shared[:, None, None, :].astype(features[-1].dtype)
    valid = jnp.ones((1, len(shared)), bool)
    maps = nnx.merge(graph, weights).decode(weighted[None], features, valid)[0]
    return Confidence(maps.prob[0], maps.thresh[0])
