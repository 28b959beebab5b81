"""The network: padding, the switches of the paper's tables, and parts with exact answers."""

import dataclasses

import float64_step
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gconet_jax import losses
from gconet_jax.config import Config, LossConfig, ModelConfig, TrainConfig
from gconet_jax.evaluation.evaluator import segment_with
from gconet_jax.interpolation import interpolation_matrix
from gconet_jax.models import layers
from gconet_jax.models.confidence import binarise
from gconet_jax.models.consensus import GroupAffinity, consensus
from gconet_jax.models.decoder import Decoder
from gconet_jax.models.gconet_plus import GCoNetPlus, normalize
from gconet_jax.models.layers import with_running_average
from gconet_jax.models.resize import resize
from gconet_jax.training import state as train_state
from gconet_jax.training import step as train_step
from gconet_jax.training.mesh import make_mesh

SMALL = ModelConfig(width=0.125, num_classes=5)

# Switches of the rows of the paper's Tables 1 and 2.
NO_EXTRAS = {'cem': False, 'racm': False}
ROWS = {
    't1_1': {
        'backbone': 'vgg16',
        'batch_norm': False,
        'laterals': 'block',
        'block_after_upsampling': True,
        'outputs': 4,
        **NO_EXTRAS,
    },
    't1_2': {'backbone': 'vgg16', 'batch_norm': False, **NO_EXTRAS},
    't1_3': NO_EXTRAS,
    't2_2': {'cem': False},
    't2_3': {},
    'released': {'racm_mask': 'conv'},
    'no_group': {'gam': False, 'gcm': False},
    'no_acm': {'acm': False},
    'resnet50': {'backbone': 'resnet50'},
    'conference_with_batch_norm': {
        'laterals': 'block',
        'block_after_upsampling': True,
        'outputs': 4,
    },
}


def batch(n: int, padding: int = 0, size: int = 32) -> dict[str, jax.Array]:
    """Return one pair of groups of n random images; padding holds noise that must not matter."""
    rng = np.random.default_rng(0)
    total = n + padding
    image = rng.integers(0, 256, (1, 2, n, size, size, 3), np.uint8)
    mask = rng.integers(0, 256, (1, 2, n, size, size), np.uint8)
    noise = np.random.default_rng(1)
    image_noise = noise.integers(0, 256, (1, 2, padding, size, size, 3), np.uint8)
    mask_noise = noise.integers(0, 256, (1, 2, padding, size, size), np.uint8)
    return {
        'image': jnp.asarray(np.concatenate([image, image_noise], axis=2)),
        'mask': jnp.asarray(np.concatenate([mask, mask_noise], axis=2)),
        'label': jnp.asarray([[1, 3]], jnp.int32),
        'valid': jnp.asarray(np.arange(total)[None, None] < np.full((1, 2, 1), n)),
    }


@pytest.mark.parametrize(('reduction', 'features'), [('mean', 'masked'), ('sum', 'raw')])
def test_padded_training_step_equals_unpadded(reduction, features):
    loss = LossConfig(iou_reduction=reduction, gst_features=features)
    config = Config(model=SMALL, loss=loss)
    mesh = make_mesh(1, (1,), devices=jax.devices()[:1])
    plain = float64_step.run(config, batch(3), mesh)
    float64_step.assert_same(float64_step.run(config, batch(3, padding=2), mesh), plain)


def test_padded_maps_equal_unpadded():
    model = with_running_average(GCoNetPlus(SMALL, rngs=nnx.Rngs(0)))
    plain, padded = batch(3), batch(3, padding=3)
    images = padded['image'][0].astype(jnp.float32) / 255
    maps = model.segment(images, padded['valid'][0])
    alone = model.segment(plain['image'][0].astype(jnp.float32) / 255, plain['valid'][0])
    np.testing.assert_allclose(maps.prob[:, :3], alone.prob, atol=1e-5)
    np.testing.assert_allclose(maps.logits[:, :3], alone.logits, atol=2e-3)


def test_the_consensus_is_the_mean_of_the_valid_images():
    rng = np.random.default_rng(0)
    attended = rng.standard_normal((2, 4, 3, 2, 5)).astype(np.float32)
    valid = np.array([[True, True, False, False], [True, True, True, False]])
    shared = consensus(jnp.asarray(attended), jnp.asarray(valid))
    expected = [images[use].mean((0, 1, 2)) for images, use in zip(attended, valid, strict=True)]
    np.testing.assert_allclose(shared[:, 0, 0, 0], expected, rtol=1e-5, atol=1e-7)


# test_configs.py lowers all of them; the others run with the slow tests.
QUICK = ('t1_1', 't2_2', 'released', 'no_group')


@pytest.mark.parametrize(
    'name', [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_switches_train(name):
    """One step of each ablation row has finite losses and reaches every parameter."""
    model = dataclasses.replace(SMALL, **ROWS[name])
    loss = LossConfig() if model.racm else LossConfig(gst=0.0)
    config = Config(model=model, loss=loss)
    graph, state = train_state.create(GCoNetPlus(model, rngs=nnx.Rngs(0)), config)
    grads, metrics, _ = jax.jit(train_step.gradients, static_argnums=(0, 1))(
        graph, config, state, batch(2)
    )
    assert all(np.isfinite(value) for value in metrics.values())
    terms = {'bce', 'iou'}
    terms |= {'gcm'} if model.gcm else set()
    terms |= {'acm'} if model.acm else set()
    terms |= {'racm', 'gst'} if model.racm else set()
    assert set(metrics) == terms | {'loss', 'k_fell_back'}
    unreached = [
        jax.tree_util.keystr(path)
        for path, grad in jax.tree_util.tree_leaves_with_path(grads)
        if not np.any(np.asarray(grad))
    ]
    assert not unreached


def test_a_model_without_batch_norm_segments():
    model = GCoNetPlus(dataclasses.replace(SMALL, **ROWS['t1_2']), rngs=nnx.Rngs(0))
    given = batch(2)
    maps = segment_with(model)(np.asarray(given['image'][0], np.uint8), given['valid'][0])
    assert maps.shape == given['mask'][0].shape


def test_the_contrast_is_with_the_consensus_of_the_other_group():
    config = dataclasses.replace(SMALL, acm=False, racm=False)
    model = with_running_average(GCoNetPlus(config, rngs=nnx.Rngs(0)))
    # Before training, attention and its output for the two groups are nearly zero.
    model.gam.value.kernel.set_value(1e4 * model.gam.value.kernel[...])
    graph, weights = nnx.split(model)
    given = batch(2)
    images, valid = normalize(given['image'][0]), given['valid'][0]

    @jax.jit
    def run(weights):
        model = nnx.merge(graph, weights)
        x5 = layers.apart(model.encode(images, valid)[-1], valid.shape)
        first, second = consensus(model.gam(x5, valid), valid)
        contrasted = jnp.stack([x5[0] * second, x5[1] * first])
        coarse = resize(model.gcm(layers.together(contrasted)), *images.shape[2:4])
        return model(images, valid).contrast_logits, layers.apart(coarse[..., 0], valid.shape)

    (own, other), expected = run(weights)
    np.testing.assert_allclose(other, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(own - other).max() > 0.1


def test_the_second_pass_sees_the_image_under_its_map():
    soft = dataclasses.replace(SMALL, gcm=False, k=5.0, k_fallback=5.0)
    graph, weights = nnx.split(with_running_average(GCoNetPlus(soft, rngs=nnx.Rngs(0))))
    given = batch(2)
    images, valid = normalize(given['image'][0]), given['valid'][0]

    @jax.jit
    def run(weights):
        model = nnx.merge(graph, weights)
        output = model(images, valid)
        masked = images * nnx.sigmoid(output.maps.logits)[..., None]
        x5 = layers.apart(model.encode(masked, valid)[-1], valid.shape)
        return output, x5.mean(axis=(2, 3))

    output, expected = run(weights)
    np.testing.assert_allclose(output.masked_features, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(output.features - expected).max() > 0.01


def test_a_side_output_does_not_see_the_lateral_of_its_stage():
    """As released: it uses the upsampled features before the lateral is added."""
    decoder = Decoder(
        (2, 4, 4, 8, 16),
        4,
        norm=False,
        block_laterals=True,
        block_after_upsampling=True,
        supervised=4,
        rngs=nnx.Rngs(0),
    )
    rng = np.random.default_rng(0)
    shapes = [(1, 32 >> i, 32 >> i, c) for i, c in enumerate((2, 4, 4, 8, 16))]
    *skips, top = [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]
    valid = jnp.ones(1, bool)
    run = nnx.jit(lambda decoder, skips: decoder(top, skips, (32, 32), valid))
    before = run(decoder, tuple(skips))
    for stage, side in enumerate(before.side_logits):
        own = 2 - stage  # the skip connection of the stage: x3, x2, x1
        changed = [skip + 1 if i == own else skip for i, skip in enumerate(skips)]
        after = run(decoder, tuple(changed))
        np.testing.assert_array_equal(after.side_logits[stage], side)
        assert np.abs(after.p1 - before.p1).max() > 0


def test_images_are_normalised_as_for_imagenet():
    levels = normalize(jnp.array([[0, 0, 0], [255, 255, 255]], jnp.uint8))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(levels, np.stack([-mean / std, (1 - mean) / std]), rtol=1e-6)


def test_config_refuses_masked_gst_without_racm():
    with pytest.raises(ValueError, match=r'config\.loss\.gst_features'):
        Config(model=dataclasses.replace(SMALL, racm=False))


def test_released_parameter_counts():
    model = GCoNetPlus(ModelConfig(racm_mask='conv'), rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    # All except the 788,001 that the released code never uses.
    assert sum(x.size for x in jax.tree.leaves(params)) == 18_415_048 - 788_001
    training_only = [model.gcm, model.classifier, model.mask]
    unused = sum(x.size for m in training_only for x in jax.tree.leaves(nnx.state(m, nnx.Param)))
    assert 18_415_048 - 788_001 - unused == 16_887_650


@pytest.mark.parametrize(
    ('lowest', 'fell_back'), [(-0.2957, False), (-0.2958, True), (-0.9, True), (0.0, False)]
)
def test_k_switches_where_exp_overflows(lowest, fell_back):
    prob, thresh = jnp.full((2, 4, 4), 0.5), jnp.full((2, 4, 4), 0.5)
    prob = prob.at[1, 2, 3].set(0.5 + lowest) if lowest > -0.5 else prob
    thresh = thresh if lowest > -0.5 else thresh.at[1, 2, 3].set(0.5 - lowest)
    result = binarise(prob, thresh, jnp.array([True, True]), k=300, k_fallback=50)
    assert bool(result.fell_back) is fell_back
    with np.errstate(over='ignore'):
        assert np.isinf(np.exp(np.float32(-300) * np.asarray(prob - thresh))).any() == fell_back
    k = 50 if fell_back else 300
    np.testing.assert_allclose(result.logits, k * np.asarray(prob - thresh), rtol=1e-6)
    # The overflow is in a padding image, so it must not matter.
    result = binarise(prob, thresh, jnp.array([True, False]), k=300, k_fallback=50)
    assert not result.fell_back


def test_binarisation_is_finite_at_the_extremes():
    grad = jax.grad(
        lambda p: losses.bce(
            binarise(p[0], 1 - p[0], jnp.ones(1, bool), k=300, k_fallback=50).logits[None],
            jnp.ones((1, 1, 2, 2)),
            jnp.ones((1, 1), bool),
        )
    )(jnp.array([[[[0.0, 1.0], [0.5, 1e-8]]]]))
    assert np.isfinite(grad).all()


@pytest.mark.parametrize(('inputs', 'outputs'), [(4, 8), (8, 16), (16, 5), (1, 7), (5, 1)])
def test_interpolation_matrix_aligns_corners(inputs, outputs):
    matrix = interpolation_matrix(inputs, outputs)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    line = np.arange(inputs, dtype=np.float32)
    expected = np.linspace(0, inputs - 1, outputs) if outputs > 1 else np.zeros(1)
    np.testing.assert_allclose(matrix @ line, expected, atol=1e-5)


def test_batch_norm_uses_valid_images_and_unbiased_running_variance():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 2, 2, 3)).astype(np.float32)
    valid = np.array([True, True, False, True])
    norm = layers.BatchNorm(3)
    y, moments = nnx.capture(norm, layers.BatchMoments)(jnp.asarray(x), jnp.asarray(valid))
    ((mean, var),) = nnx.to_pure_dict(moments)['moments']
    used = x[valid].reshape(-1, 3)
    np.testing.assert_allclose(mean, used.mean(0), atol=1e-6)
    np.testing.assert_allclose(var, used.var(0, ddof=1), rtol=1e-5)
    expected = (x - used.mean(0)) / np.sqrt(used.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_the_consensus_of_a_marked_image_is_the_mean_of_what_is_marked():
    gam = GroupAffinity(8, rngs=nnx.Rngs(0))
    gam.become_identity()
    rng = np.random.default_rng(0)
    x5 = jnp.asarray(rng.standard_normal((2, 3, 2, 2, 8)), jnp.float32)
    marked = np.zeros((2, 3, 32, 32), np.float32)
    marked[0, 0, :16], marked[0, 0, 16:, :16] = 1, 0.5  # three cells, one of them by half
    shared, found = gam.of_marked(x5, jnp.asarray(marked))
    x = x5[0, 0]
    expected = (x[0, 0] + x[0, 1] + 0.5 * x[1, 0]) / 2.5 / 4  # `consensus` is a mean over 2 x 2
    np.testing.assert_allclose(shared[0].ravel(), expected, rtol=1e-5)
    np.testing.assert_array_equal(found, [True, False])


def test_a_pair_takes_its_consensus_from_its_first_image_if_that_shows_something():
    model = dataclasses.replace(SMALL, racm=False)
    given = batch(2)
    unmarked = given | {'mask': given['mask'].at[:, :, 0].set(0)}
    losses = {}
    for probability in 0.0, 1.0:
        train = TrainConfig(steps=1, example=probability, identity_gam=True)
        config = Config(model=model, loss=LossConfig(gst=0.0), train=train)
        graph, state = train_state.create(GCoNetPlus(model, rngs=nnx.Rngs(0)), config)
        gradients = jax.jit(train_step.gradients, static_argnums=(0, 1))
        losses[probability] = [
            float(gradients(graph, config, state, each)[1]['gcm']) for each in (given, unmarked)
        ]
    assert abs(losses[1.0][0] / losses[0.0][0] - 1) > 1e-5
    assert losses[1.0][1] == pytest.approx(losses[0.0][1], rel=1e-6)
