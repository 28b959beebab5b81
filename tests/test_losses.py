"""Each loss term: hand-computed values, and gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gconet_jax import losses

RNG = np.random.default_rng(0)
N, H, W, C, CLASSES = 5, 3, 4, 6, 7
VALID = jnp.asarray(np.arange(N)[None] < np.array([[4], [4]]))
LOGITS = jnp.asarray(2 * RNG.standard_normal((2, N, H, W)), jnp.float32)
CONTRAST = jnp.asarray(2 * RNG.standard_normal((2, 2, N, H, W)), jnp.float32)
MASKS = jnp.asarray(RNG.uniform(size=(2, N, H, W)), jnp.float32)
FEATURES = jnp.asarray(RNG.standard_normal((2, N, C)), jnp.float32)
CLASS_LOGITS = jnp.asarray(RNG.standard_normal((2, N, CLASSES)), jnp.float32)
LABELS = jnp.array([2, 5], jnp.int32)

TERMS = {
    'bce': (lambda x: losses.bce(x, MASKS, VALID), LOGITS),
    'iou_mean': (lambda x: losses.iou(x, MASKS, VALID, reduction='mean'), LOGITS),
    'iou_sum': (lambda x: losses.iou(x, MASKS, VALID, reduction='sum'), LOGITS),
    'mse': (lambda x: losses.mse(x, MASKS, VALID), LOGITS),
    'contrast': (lambda x: losses.contrast(x, MASKS, VALID), CONTRAST),
    'triplet': (lambda x: losses.group_triplet(x, VALID, margin=1.0), FEATURES),
    'classification': (lambda x: losses.classification(x, LABELS, VALID), CLASS_LOGITS),
}


@pytest.mark.parametrize('name', TERMS)
def test_gradient_against_finite_differences(name):
    term, x = TERMS[name]
    check_grads(term, (x,), order=1, modes=('fwd', 'rev'), eps=1e-2, atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize('name', TERMS)
def test_padding_has_no_gradient_and_no_effect(name):
    term, x = TERMS[name]
    axis = 2 if name == 'contrast' else 1
    padding = jax.grad(term)(x).take(4, axis=axis)
    np.testing.assert_array_equal(padding, 0)
    index = (slice(None),) * axis + (4,)
    np.testing.assert_allclose(term(x.at[index].set(9.0)), term(x), rtol=1e-6)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_values_by_the_formulas():
    used = np.asarray(VALID)
    maps, truth = sigmoid(LOGITS)[used], np.asarray(MASKS, np.float64)[used]
    bce = -(truth * np.log(maps) + (1 - truth) * np.log(1 - maps)).mean()
    np.testing.assert_allclose(TERMS['bce'][0](LOGITS), bce, rtol=1e-5)
    np.testing.assert_allclose(TERMS['mse'][0](LOGITS), np.square(maps - truth).mean(), rtol=1e-5)
    both = (maps * truth).sum((1, 2))
    per_image = 1 - both / (maps + truth - maps * truth).sum((1, 2))
    np.testing.assert_allclose(TERMS['iou_mean'][0](LOGITS), per_image.mean(), rtol=1e-5)
    np.testing.assert_allclose(TERMS['iou_sum'][0](LOGITS), per_image.sum(), rtol=1e-5)

    p = sigmoid(CONTRAST)[:, used]
    y = np.stack([truth, np.zeros_like(truth)])
    focal = -(y * np.log(p) + (1 - y) * np.log(1 - p)) * (y + p - 2 * y * p) ** 2
    np.testing.assert_allclose(TERMS['contrast'][0](CONTRAST), focal.mean(), rtol=1e-5)

    f = np.asarray(FEATURES, np.float64)

    def triplet(a, p, n):
        d = [np.linalg.norm(a - other + 1e-6, axis=1) for other in (p, n)]
        return np.maximum(0, d[0] - d[1] + 1).mean()

    (a1, a2), (b1, b2) = ((g[:2], g[2:4]) for g in f)
    expected = triplet(a1, a2, b1) + triplet(b1, b2, a1)
    np.testing.assert_allclose(TERMS['triplet'][0](FEATURES), expected, rtol=1e-5)

    logits = np.asarray(CLASS_LOGITS, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.concatenate([log_p[0, :4, 2], log_p[1, :4, 5]]).mean()
    np.testing.assert_allclose(TERMS['classification'][0](CLASS_LOGITS), expected, rtol=1e-5)


def test_odd_groups_leave_the_middle_image_out():
    valid = jnp.ones((2, 5), bool)
    value = losses.group_triplet(FEATURES, valid, margin=1.0)
    changed = losses.group_triplet(FEATURES.at[:, 2].set(7.0), valid, margin=1.0)
    np.testing.assert_array_equal(value, changed)


def test_equal_images_have_a_gradient():
    """Two copies of a file have distance 0, where the square root has no derivative."""
    features = FEATURES.at[:, 2:4].set(FEATURES[:, :2])
    grad = jax.grad(losses.group_triplet)(features, VALID, margin=9.0)  # above any distance
    assert np.isfinite(grad).all()
    assert np.abs(grad).max() > 0


def test_groups_of_one_image_give_zero_and_no_nan():
    valid = jnp.asarray([[True], [True]])
    value, grad = jax.value_and_grad(losses.group_triplet)(FEATURES[:, :1], valid, margin=1.0)
    assert value == 0
    np.testing.assert_array_equal(grad, 0)


def test_empty_truth_under_an_empty_map_is_no_loss():
    logits, masks = jnp.full((1, 1, 2, 2), -200.0), jnp.zeros((1, 1, 2, 2))
    value, grad = jax.value_and_grad(losses.iou)(
        logits, masks, jnp.ones((1, 1), bool), reduction='mean'
    )
    assert value == 0
    assert np.isfinite(grad).all()
