"""The group affinity module (GAM), its consensus, and the group contrast module (GCM)."""

import jax
import jax.numpy as jnp
from flax import nnx

from gconet_jax.affinity import group_affinity
from gconet_jax.models import layers
from gconet_jax.precision import precise


class GroupAffinity(nnx.Module):
    """GAM: attends to the positions that the whole group shares (GCoNet+, section 3.2)."""

    def __init__(self, channels: int, *, affinity: str = 'auto', rngs: nnx.Rngs):
        self.form = affinity
        self.query = layers.kaiming_conv(channels, channels, 1, rngs=rngs)
        self.key = layers.kaiming_conv(channels, channels, 1, rngs=rngs)
        self.value = layers.kaiming_conv(channels, channels, 1, rngs=rngs)

    def become_identity(self) -> None:
        """Set the three projections to the identity, in place.

        Positions are then compared by x5 itself, and the consensus is an attention-weighted mean of
        x5. It is therefore as informative for classes that are not in the training data.
        """
        for part in (self.query, self.key, self.value):
            part.kernel.set_value(jnp.eye(part.kernel.shape[2])[None, None])
            assert part.bias is not None
            part.bias.set_value(jnp.zeros(part.bias.shape))

    def project(self, x5: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Project x5 (G, N, h, w, C) to queries and keys, (G, N, h·w, C) each."""
        g, n, h, w, channels = x5.shape
        flat = layers.together(x5)
        query, key = (layers.apart(part(flat), (g, n)) for part in (self.query, self.key))
        return query.reshape(g, n, h * w, channels), key.reshape(g, n, h * w, channels)

    def attention(self, x5: jax.Array, valid: jax.Array) -> jax.Array:
        """Return the attention of x5 (G, N, h, w, C), valid (G, N) bool.

        It is (G, N, h, w) and sums to 1 over each image.
        """
        affinity = group_affinity(*self.project(x5), valid, self.form)
        scores = affinity * self.value.kernel.shape[2] ** -0.5
        return jax.nn.softmax(scores, axis=-1).reshape(x5.shape[:4])

    def attend(self, x5: jax.Array, attention: jax.Array) -> jax.Array:
        """Weight x5 (G, N, h, w, C) by attention (G, N, h, w) and project it; same shape."""
        weighted = x5 * attention[..., None].astype(x5.dtype)
        return layers.apart(self.value(layers.together(weighted)), x5.shape[:2])

    def of_marked(self, x5: jax.Array, marked: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compute the consensus of marked regions: the mean of x5 there, projected as in the GAM.

        Args:
          x5: (G, N, h, w, C).
          marked: (G, N, H, W) in [0, 1]; H and W are multiples of h and w.

        Returns:
          The consensus (G, 1, 1, 1, C), and (G,) bool, True if the group has any marks.
        """
        g, n, h, w = x5.shape[:4]
        cells = marked.reshape(g, n, h, marked.shape[2] // h, w, -1).mean(axis=(3, 5))
        total = cells.sum(axis=(2, 3))
        attention = cells / jnp.maximum(total, jnp.finfo(cells.dtype).tiny)[..., None, None]
        counted = total > 0
        return consensus(self.attend(x5, attention), counted), counted.any(axis=1)

    def __call__(self, x5: jax.Array, valid: jax.Array) -> jax.Array:
        """Attend to what the group shares: x5 (G, N, h, w, C), valid (G, N) -> same shape."""
        return self.attend(x5, self.attention(x5, valid))


def consensus(attended: jax.Array, valid: jax.Array) -> jax.Array:
    """Average attended features (G, N, h, w, C) over positions and valid images.

    Returns (G, 1, 1, 1, C), of the type of `attended`.
    """
    given, attended = attended.dtype, precise(attended)
    weight = valid.astype(attended.dtype)
    total = jnp.einsum('gnhwc,gn->gc', attended, weight, precision=jax.lax.Precision.HIGHEST)
    count = jnp.maximum(weight.sum(axis=-1), 1) * (attended.shape[2] * attended.shape[3])
    return (total / count[:, None])[:, None, None, None, :].astype(given)


class GroupContrast(nnx.Module):
    """GCM's head: predicts a coarse map from consensus-weighted features (section 3.3)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.hidden = layers.conv(channels, channels // 4, 3, rngs=rngs)
        self.predict = layers.conv(channels // 4, 1, 1, rngs=rngs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """Map features (B, h, w, C) to logits (B, h, w, 1)."""
        return self.predict(precise(nnx.relu(self.hidden(features))))
