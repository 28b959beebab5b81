"""The terms of the loss, each a pure function, and their weighted sum (GCoNet+, equations 2-11).

Shapes are those of a pair of groups: maps (2, N, H, W), features (2, N, C), valid (2, N) bool.
Means and sums leave padding images out. Maps come as logits: the sigmoid of k (P - T) saturates
in float32 long before its logarithm stops mattering.
"""

import jax
import jax.numpy as jnp
import optax

from gconet_jax.config import LossConfig
from gconet_jax.models.gconet_plus import PairOutput
from gconet_jax.models.resize import resize

# PyTorch's triplet loss adds this to each coordinate of a difference before taking its norm.
TRIPLET_EPSILON = 1e-6
FOCAL_GAMMA = 2


def total_loss(
    output: PairOutput,
    masks: jax.Array,
    labels: jax.Array,
    valid: jax.Array,
    config: LossConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted sum of the terms, and each term before its weight.

    Args:
      output: of the training pass over a pair.
      masks: (2, N, H, W) float32 in [0, 1], grey allowed.
      labels: (2,) int32, the class of each group.
      valid: (2, N) bool.
      config: weights and variants; terms of weight 0 or of modules that are off are absent.
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
    """Binary cross-entropy, mean over the pixels of valid images (equation 4)."""
    return _mean_image(optax.sigmoid_binary_cross_entropy(logits, masks).mean((-2, -1)), valid)


def iou(logits: jax.Array, masks: jax.Array, valid: jax.Array, *, reduction: str) -> jax.Array:
    """1 - sum(Y M) / sum(Y + M - Y M) of each image, their mean or sum (equation 5)."""
    maps = jax.nn.sigmoid(logits)
    both = (masks * maps).sum(axis=(-2, -1))
    either = masks.sum(axis=(-2, -1)) + maps.sum(axis=(-2, -1)) - both
    # Empty truth under an empty map: nothing is wrong, and nothing may divide by zero.
    empty = either <= 0
    loss = jnp.where(empty, 0, 1 - both / jnp.where(empty, 1, either))
    if reduction == 'sum':
        return (loss * valid.astype(loss.dtype)).sum()
    return _mean_image(loss, valid)


def mse(logits: jax.Array, masks: jax.Array, valid: jax.Array) -> jax.Array:
    """Squared difference of map and mask, in [0, 1], mean over the pixels of valid images."""
    return _mean_image(jnp.square(jax.nn.sigmoid(logits) - masks).mean((-2, -1)), valid)


def contrast(logits: jax.Array, masks: jax.Array, valid: jax.Array) -> jax.Array:
    """Focal loss of the GCM: the masks under the own consensus, nothing under the other's.

    logits (2, 2, N, H, W): the first axis is own, other. Equation 2 with Lin et al., 2017.
    """
    truth = jnp.stack([masks, jnp.zeros_like(masks)])
    focal = optax.sigmoid_focal_loss(logits, truth, gamma=FOCAL_GAMMA)
    return _mean_image(focal.mean((-2, -1)), jnp.broadcast_to(valid, focal.shape[:3]))


def group_triplet(features: jax.Array, valid: jax.Array, *, margin: float) -> jax.Array:
    """Group-based symmetric triplet loss (GST, equations 8-9).

    Each group's n images are split into its first n // 2 and last n // 2: (A1, A2) and (B1, B2).
    The loss is triplet(A1, A2, B1) + triplet(B1, B2, A1), with
    triplet(a, p, n) = mean of max(0, |a - p| - |a - n| + margin); 0 for groups of one image.

    Args:
      features: (2, N, C).
      valid: (2, N), the n valid images of a group first; a pair has the same n in both.
      margin: of the distances.
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
    """Cross-entropy of each image's (2, N, classes) against its group's label (2,) (equation 6)."""
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
