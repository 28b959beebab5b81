"""What a group has in common: the group affinity module (GAM) and the group contrast (GCM)."""

import jax
import jax.numpy as jnp
from flax import nnx

from gconet_jax import affinity
from gconet_jax.models import layers


class GroupAffinity(nnx.Module):
    """GAM: attends to the positions that the whole group shares (GCoNet+, section 3.2)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.query = layers.kaiming_conv(channels, channels, 1, rngs=rngs)
        self.key = layers.kaiming_conv(channels, channels, 1, rngs=rngs)
        self.value = layers.kaiming_conv(channels, channels, 1, rngs=rngs)

    def attention(self, x5: jax.Array, valid: jax.Array) -> jax.Array:
        """x5 (G, N, h, w, C), valid (G, N) -> float32 (G, N, h, w), of sum 1 over an image."""
        g, n, h, w, channels = x5.shape
        flat = layers.together(x5)
        query = layers.apart(self.query(flat), (g, n)).reshape(g, n, h * w, channels)
        key = layers.apart(self.key(flat), (g, n)).reshape(g, n, h * w, channels)
        scores = affinity.group_affinity(query, key, valid) * channels**-0.5
        return jax.nn.softmax(scores, axis=-1).reshape(g, n, h, w)

    def __call__(self, x5: jax.Array, valid: jax.Array) -> jax.Array:
        """x5 (G, N, h, w, C), valid (G, N) -> attended features, of the shape of x5."""
        weighted = x5 * self.attention(x5, valid)[..., None].astype(x5.dtype)
        return layers.apart(self.value(layers.together(weighted)), valid.shape)


def consensus(attended: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of the attended features (G, N, h, w, C) of the valid images: (G, 1, 1, 1, C)."""
    given, attended = attended.dtype, layers.precise(attended)
    weight = valid.astype(attended.dtype)
    total = jnp.einsum('gnhwc,gn->gc', attended, weight, precision=jax.lax.Precision.HIGHEST)
    count = jnp.maximum(weight.sum(axis=-1), 1) * (attended.shape[2] * attended.shape[3])
    return (total / count[:, None])[:, None, None, None, :].astype(given)


class GroupContrast(nnx.Module):
    """GCM's prediction layer: a coarse map from features under a consensus (section 3.3)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.hidden = layers.conv(channels, channels // 4, 3, rngs=rngs)
        self.predict = layers.conv(channels // 4, 1, 1, rngs=rngs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, C) -> logits (B, h, w, 1)."""
        return self.predict(layers.precise(nnx.relu(self.hidden(features))))
