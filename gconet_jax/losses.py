"""The loss terms, each a pure function, and their weighted sum (GCoNet+, equations 2-11).

All functions take a pair of groups: maps (2, N, H, W), features (2, N, C), valid (2, N) bool.
Padding images are left out of means and sums. Each term is a scalar.

Maps are passed as logits, because the sigmoid of k (P - T) saturates in float32 while its
logarithm still matters.
"""

import jax
import jax.numpy as jnp
import optax

from gconet_jax.config import LossConfig
from gconet_jax.models.gconet_plus import PairOutput
from gconet_jax.models.resize import resize

# PyTorch's triplet loss adds this to each coordinate of a difference before the norm.
TRIPLET_EPSILON = 1e-6
FOCAL_GAMMA = 2


def total_loss(
    output: PairOutput,
    masks: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    config: LossConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Compute the weighted sum of the loss terms.

    Args:
      output: output of the training pass over the pair.
      masks: (2, N, H, W) float32 in [0, 1]; need not be binary.
      labels: (2,) int32, the class of each group.
      valid: (2, N) bool, False for padding images.
      config: weights and variants of the terms.

    Returns:
      The total, and the unweighted terms by name. Terms with weight 0, or whose module is off, are
      left out.
    """
    terms = {}
    sides = [_upsample(logits, masks.shape) for logits in output.side_logits]
    if config.bce:
        terms['bce'] = sum(bce(logits, masks, valid) for logits in (output.maps.logits, *sides))
    if config.iou:
        terms['iou'] = sum(
            iou(logits, masks, valid, reduction=config.iou_reduction)
            for logits in (output.maps.logits, *sides)
        )
    if config.mse:
        terms['mse'] = sum(mse(logits, masks, valid) for logits in (output.maps.logits, *sides))
    if config.gcm and output.contrast_logits is not None:
        terms['gcm'] = contrast(output.contrast_logits, masks, valid)
    if config.gst:
        masked = config.gst_features == 'masked'
        features = output.masked_features if masked else output.features
        assert features is not None  # Config refuses 'masked' without the RACM
        terms['gst'] = group_triplet(features, valid, margin=config.gst_margin)
    if config.acm and output.class_logits is not None:
        terms['acm'] = classification(output.class_logits, labels, valid)
    if config.racm and output.masked_class_logits is not None:
        terms['racm'] = classification(output.masked_class_logits, labels, valid)
    total = sum((getattr(config, name) * term for name, term in terms.items()), jnp.zeros(()))
    return total, terms


def bce(logits: jax.Array, masks: jax.Array, valid: jax.Array) -> jax.Array:
    """Binary cross-entropy, averaged over the pixels of valid images (equation 4)."""
    return _mean_image(optax.sigmoid_binary_cross_entropy(logits, masks).mean((-2, -1)), valid)


def iou(logits: jax.Array, masks: jax.Array, valid: jax.Array, *, reduction: str) -> jax.Array:
    """IoU loss, 1 - sum(Y M) / sum(Y + M - Y M) per image (equation 5).

    `reduction` over the valid images is 'mean' or 'sum'.
    """
    maps = jax.nn.sigmoid(logits)
    both = (masks * maps).sum(axis=(-2, -1))
    either = masks.sum(axis=(-2, -1)) + maps.sum(axis=(-2, -1)) - both
    # An empty map of an empty mask is right; avoid 0 / 0 there, also in the gradient.
    empty = either <= 0
    loss = jnp.where(empty, 0, 1 - both / jnp.where(empty, 1, either))
    if reduction == 'sum':
        return (loss * valid.astype(loss.dtype)).sum()
    return _mean_image(loss, valid)


def mse(logits: jax.Array, masks: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean squared error of the map, in [0, 1], over the pixels of valid images."""
    return _mean_image(jnp.square(jax.nn.sigmoid(logits) - masks).mean((-2, -1)), valid)


def contrast(logits: jax.Array, masks: jax.Array, valid: jax.Array) -> jax.Array:
    """Focal loss of the GCM (equation 2 with Lin et al., 2017).

    The target is the mask under the group's own consensus, and an empty map under the other
    group's.

    Args:
      logits: (2, 2, N, H, W); the first axis is (own, other group's) consensus.
      masks: (2, N, H, W) in [0, 1].
      valid: (2, N) bool.
    """
    truth = jnp.stack([masks, jnp.zeros_like(masks)])
    focal = optax.sigmoid_focal_loss(logits, truth, gamma=FOCAL_GAMMA)
    return _mean_image(focal.mean((-2, -1)), jnp.broadcast_to(valid, focal.shape[:3]))


def group_triplet(features: jax.Array, valid: jax.Array, *, margin: float) -> jax.Array:
    """Group-based symmetric triplet loss (GST, equations 8-9).

    The n images of each group are split into the first n // 2 and the last n // 2: (A1, A2) and
    (B1, B2). The loss is triplet(A1, A2, B1) + triplet(B1, B2, A1), with
    triplet(a, p, n) = mean of max(0, |a - p| - |a - n| + margin). It is 0 for groups of one image.

    Args:
      features: (2, N, C).
      valid: (2, N) bool. Each group's valid images come first, and both groups have the same
        number n of them.
      margin: margin of the distances.
    """
    count = valid.sum(axis=-1).min()
    half = count // 2
    rows = jnp.arange(max(features.shape[1] // 2, 1))
    first = features[:, rows]
    last = jnp.take(features, jnp.minimum(count - half + rows, features.shape[1] - 1), axis=1)
    weight = (rows < half).astype(features.dtype)

    def triplet(anchor, positive, negative):
        excess = _distance(anchor, positive) - _distance(anchor, negative) + margin
        return (weight * jnp.maximum(excess, 0)).sum() / jnp.maximum(weight.sum(), 1)

    return triplet(first[0], last[0], first[1]) + triplet(first[1], last[1], first[0])


def classification(logits: jax.Array, labels: jax.Array, valid: jax.Array) -> jax.Array:
    """Cross-entropy of logits (2, N, classes) with the label of each group (2,) (equation 6)."""
    labels = jnp.broadcast_to(labels[:, None], logits.shape[:2])
    return _mean_image(optax.softmax_cross_entropy_with_integer_labels(logits, labels), valid)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.square(a - b + TRIPLET_EPSILON).sum(axis=-1))


def _mean_image(per_image: jax.Array, valid: jax.Array) -> jax.Array:
    weight = valid.astype(per_image.dtype)
    return (per_image * weight).sum() / jnp.maximum(weight.sum(), 1)


def _upsample(logits: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    flat = logits.reshape(-1, *logits.shape[2:])[..., None]
    return resize(flat, *shape[2:])[..., 0].reshape(shape)
