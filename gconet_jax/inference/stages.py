"""The network in compiled parts that process a few images at a time, for groups of any size.

Once batch norm is folded (`weights.folding`), the images of a group interact only in the GAM, which
computes the consensus. So `encode` and `decode` run on a few images at a time, and only `consensus`
needs the x5 of the whole group. Results stay on the device until they are read.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gconet_jax.models.confidence import overflows
from gconet_jax.models.consensus import consensus
from gconet_jax.models.gconet_plus import GCoNetPlus, image_size, normalize

Features = tuple[jax.Array, ...]  # x1 to x5 of B images

# The x5 of a group are padded to a power of two up to this many images, and to a multiple of it
# beyond. So a few compiled programs serve groups of every size.
PADDED_TO = 32


class Maps(NamedTuple):
    """Maps of B images under both k, and what decides between them; (B, H, W) float32 each."""

    steep: jax.Array  # sigmoid(k (P - T)); P without CEM
    fallback: jax.Array  # sigmoid(k_fallback (P - T)); P without CEM
    overflowed: jax.Array  # () bool: exp(-k (P - T)) overflows float32 in any image
    prob: jax.Array  # P of the CEM; without CEM, the map
    thresh: jax.Array  # T of the CEM; without CEM, 0.5


class Look(NamedTuple):
    """Intermediate results of B images, between x5 and P."""

    # Decoder stages, mean over channels of absolute values: (B, h, w) each.
    stages: tuple[jax.Array, ...]
    # Class activation map (Zhou et al., CVPR 2016) of the auxiliary classifier's most likely class,
    # without bias: (B, h, w); None without a classifier.
    class_activation: jax.Array | None


class Programs(NamedTuple):
    """The jitted functions of one network structure; each takes the weights first."""

    encode: Callable[..., Features]
    consensus: Callable[..., jax.Array]
    attention: Callable[..., jax.Array]
    decode: Callable[..., Maps]
    look: Callable[..., Look]


class Stages:
    """The compiled parts of a network whose batch norm is folded."""

    def __init__(self, model: GCoNetPlus, device: Any = None):
        self.config = model.config
        self._device = device
        graph, weights = nnx.split(model)
        self._programs = _programs(graph)
        self._weights = jax.device_put(weights, device)

    def encode(self, images: np.ndarray) -> Features:
        """Return the features of uint8 RGB images (B, H, W, 3); H and W are multiples of 16."""
        return self._programs.encode(self._weights, images)

    def consensus(self, x5: Sequence[jax.Array]) -> jax.Array:
        """Return the consensus (C,) of a group, given its x5 in parts, (B, h, w, C) each."""
        if not self.config.gam:
            return jnp.ones(x5[0].shape[-1])
        return self._programs.consensus(self._weights, *self._gather(x5))

    def attention(self, x5: Sequence[jax.Array]) -> np.ndarray:
        """Return the GAM's attention over the positions of a group's n images, (n, h, w)."""
        group, count = self._gather(x5)
        return np.asarray(self._programs.attention(self._weights, group, count))[:count]

    def decode(self, features: Features, shared: jax.Array) -> Maps:
        """Return the maps of B images, given the consensus (C,) of their group."""
        return self._programs.decode(self._weights, features, shared)

    def look(self, features: Features, shared: jax.Array) -> Look:
        """Return intermediate results of `decode`."""
        return self._programs.look(self._weights, features, shared)

    def _gather(self, parts: Sequence[jax.Array]) -> tuple[jax.Array, np.int32]:
        """Join parts (B, ...) into one zero-padded array; return it and the number of images."""
        count = sum(map(len, parts))
        if count <= PADDED_TO:
            size = 1 << (count - 1).bit_length()
        else:
            size = -(-count // PADDED_TO) * PADDED_TO
        shape = size, *parts[0].shape[1:]
        group, start = jnp.zeros(shape, parts[0].dtype, device=self._device), 0
        for part in parts:
            group = _place(group, part, np.int32(start))
            start += len(part)
        return group, np.int32(count)


@functools.cache
def _programs(graph: nnx.GraphDef) -> Programs:
    """Return the programs of a structure.

    As a static argument of `jax.jit`, the structure would be hashed in Python at every call. That
    takes longer than starting a program, and crashes JAX 0.12 when two threads do it.
    """
    functions = _encode, _consensus, _attention, _decode, _look
    return Programs(*(jax.jit(functools.partial(function, graph)) for function in functions))


@functools.partial(jax.jit, donate_argnums=0)
def _place(group: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(group, part, start, axis=0)


def _encode(graph: nnx.GraphDef, weights: Any, images: jax.Array) -> Features:
    valid = jnp.ones((1, len(images)), bool)
    return nnx.merge(graph, weights).encode(normalize(images)[None], valid)


def _consensus(graph: nnx.GraphDef, weights: Any, x5: jax.Array, count: jax.Array) -> jax.Array:
    valid = (jnp.arange(len(x5), dtype=count.dtype) < count)[None]
    shared = consensus(nnx.merge(graph, weights).gam(x5[None], valid), valid)
    return shared[0, 0, 0, 0]


def _attention(graph: nnx.GraphDef, weights: Any, x5: jax.Array, count: jax.Array) -> jax.Array:
    valid = (jnp.arange(len(x5), dtype=count.dtype) < count)[None]
    return nnx.merge(graph, weights).gam.attention(x5[None], valid)[0]


def _decode(graph: nnx.GraphDef, weights: Any, features: Features, shared: jax.Array) -> Maps:
    model, x5 = nnx.merge(graph, weights), features[-1]
    weighted = x5 * shared[None, None, None].astype(x5.dtype)
    valid = jnp.ones((1, len(x5)), bool)
    prob, thresh = (x[0] for x in model.decode(weighted[None], features, valid)[0][1:3])
    if model.cem is None:
        return Maps(prob, prob, jnp.asarray(False), prob, thresh)
    config, difference = model.config, prob - thresh
    steep, fallback = (nnx.sigmoid(k * difference) for k in (config.k, config.k_fallback))
    return Maps(steep, fallback, overflows(difference, config.k).any(), prob, thresh)


def _look(graph: nnx.GraphDef, weights: Any, features: Features, shared: jax.Array) -> Look:
    model, x5 = nnx.merge(graph, weights), features[-1]
    weighted = x5 * shared[None, None, None].astype(x5.dtype)
    valid = jnp.ones(len(x5), bool)
    stages = model.decoder(weighted, features[:-1], image_size(features), valid).stages
    activation = None
    if model.classifier is not None:
        x5 = x5.astype(jnp.float32)
        likely = model.classifier(x5.mean(axis=(1, 2))).argmax(axis=-1)
        activation = jnp.einsum('bhwc,cb->bhw', x5, model.classifier.kernel[:, likely])
    return Look(tuple(jnp.abs(x).mean(axis=-1) for x in stages), activation)
