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
from gconet_jax.models.gconet_plus import GCoNetPlus, image_size, normalize

Features = tuple[jax.Array, ...]  # x1 to x5 of B images

BLOCK = 8  # images by images of which similarities exist at once


class Confidence(NamedTuple):
    """What becomes the map of B images, (B, H, W) each: sigmoid(k (P - T)), or P without CEM."""

    prob: jax.Array
    thresh: jax.Array


class Look(NamedTuple):
    """What the network makes of B images between x5 and P."""

    stages: tuple[
        jax.Array, ...
    ]  # of the decoder, mean over channels of absolute values: (B, h, w)
    # Of the most likely class of the auxiliary classifier, before its bias (class activation maps,
    # Zhou et al., CVPR 2016): (B, h, w); None without a classifier.
    class_activation: jax.Array | None


class Stages:
    """The parts of one network, which has no batch norm."""

    def __init__(self, model: GCoNetPlus, device: Any = None):
        self.config = model.config
        self._graph, weights = nnx.split(model)
        self._weights = jax.device_put(weights, device)

    def encode(self, images: np.ndarray) -> Features:
        """uint8 (B, H, W, 3), H and W multiples of 16, to features."""
        return _encode(self._graph, self._weights, images)

    def attention(self, x5: jax.Array | np.ndarray) -> np.ndarray:
        """How much the GAM attends to each position of a group x5 (n, h, w, C): (n, h, w)."""
        n, size = len(x5), x5.shape[1:3]
        blocks, valid = _blocks(x5)
        projected = [_project(self._graph, self._weights, block) for block in blocks]
        rows = []
        for query, _ in projected:
            best = jnp.zeros(query.shape[1:3])
            for (_, key), counted in zip(projected, valid, strict=True):
                best = _add_matches(self.config.affinity, best, query, key, counted)
            rows.append(np.asarray(_attention(self._graph, self._weights, best / n, size)))
        return np.concatenate(rows)[:n]

    def consensus(self, x5: jax.Array | np.ndarray) -> jax.Array:
        """What a group of n images (n, h, w, C) has in common: (C,)."""
        if not self.config.gam:
            return jnp.ones(x5.shape[-1])
        attention, _ = _blocks(self.attention(x5))
        total = jnp.zeros(x5.shape[-1])
        for block, valid, where in zip(*_blocks(x5), attention, strict=True):
            total = _add_attended(self._graph, self._weights, total, block, where, valid)
        return total / len(x5)

    def decode(self, features: Features, shared: jax.Array | np.ndarray) -> Confidence:
        """Features of B images under the consensus of the group of each, (B, C)."""
        return _decode(self._graph, self._weights, features, shared)

    def look(self, features: Features, shared: jax.Array | np.ndarray) -> Look:
        """What `decode` passes through on the way."""
        return _look(self._graph, self._weights, features, shared)


def _blocks(x: jax.Array | np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(n, ...) in blocks of BLOCK, the last one padded, and which of each are no padding."""
    n = len(x)
    padded = np.pad(x, [(0, -n % BLOCK), *[(0, 0)] * (x.ndim - 1)])
    count = len(padded) // BLOCK
    return np.split(padded, count), np.split(np.arange(len(padded)) < n, count)


@functools.partial(jax.jit, static_argnums=0)
def _encode(graph: nnx.GraphDef, weights: Any, images: jax.Array) -> Features:
    valid = jnp.ones((1, len(images)), bool)
    return nnx.merge(graph, weights).encode(normalize(images)[None], valid)


@functools.partial(jax.jit, static_argnums=0)
def _project(graph: nnx.GraphDef, weights: Any, x5: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Queries and keys (1, B, h·w, C)."""
    return nnx.merge(graph, weights).gam.project(x5[None])


@functools.partial(jax.jit, static_argnums=0)
def _add_matches(
    form: str, total: jax.Array, query: jax.Array, key: jax.Array, valid: jax.Array
) -> jax.Array:
    """Adds to (B, S) the best match of each position in each of the valid images of `key`."""
    best = best_matches(query, key, form)[0]
    return total + jnp.where(valid[None, None], best, 0).sum(axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _attention(
    graph: nnx.GraphDef, weights: Any, affinity: jax.Array, size: tuple[int, ...]
) -> jax.Array:
    return nnx.merge(graph, weights).gam.attention(affinity[None], size)[0]


@functools.partial(jax.jit, static_argnums=0)
def _add_attended(
    graph: nnx.GraphDef,
    weights: Any,
    total: jax.Array,
    x5: jax.Array,
    attention: jax.Array,
    valid: jax.Array,
) -> jax.Array:
    """Adds to (C,) the means over positions of the attended features of the valid images."""
    attended = nnx.merge(graph, weights).gam.attend(x5[None], attention[None])[0]
    means = attended.astype(jnp.float32).mean(axis=(1, 2))
    return total + jnp.where(valid[:, None], means, 0).sum(axis=0)


@functools.partial(jax.jit, static_argnums=0)
def _decode(graph: nnx.GraphDef, weights: Any, features: Features, shared: jax.Array) -> Confidence:
    weighted = features[-1] * shared[:, None, None, :].astype(features[-1].dtype)
    valid = jnp.ones((1, len(shared)), bool)
    maps = nnx.merge(graph, weights).decode(weighted[None], features, valid)[0]
    return Confidence(maps.prob[0], maps.thresh[0])


@functools.partial(jax.jit, static_argnums=0)
def _look(graph: nnx.GraphDef, weights: Any, features: Features, shared: jax.Array) -> Look:
    model, x5 = nnx.merge(graph, weights), features[-1]
    weighted = x5 * shared[:, None, None, :].astype(x5.dtype)
    valid = jnp.ones(len(x5), bool)
    stages = model.decoder(weighted, features[:-1], image_size(features), valid).stages
    activation = None
    if model.classifier is not None:
        x5 = x5.astype(jnp.float32)
        likely = model.classifier(x5.mean(axis=(1, 2))).argmax(axis=-1)
        activation = jnp.einsum('bhwc,cb->bhw', x5, model.classifier.kernel[:, likely])
    return Look(tuple(jnp.abs(x).mean(axis=-1) for x in stages), activation)
