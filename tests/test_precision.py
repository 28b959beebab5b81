"""bfloat16 and rematerialisation: what they may change, and what they may not."""

import dataclasses
import functools

import float64_step
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_mesh
from flax import nnx

from gconet_jax.config import Config, LossConfig, ModelConfig, RunConfig
from gconet_jax.models import layers
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.models.vgg import VGG16
from gconet_jax.training import state as train_state
from gconet_jax.training import step as train_step

# Includes the parts of the conference model, which have their own blocks.
CONFIG = Config(
    model=ModelConfig(
        width=0.125, num_classes=8, laterals='block', block_after_upsampling=True, outputs=4
    )
)
BFLOAT16 = dataclasses.replace(
    CONFIG, model=dataclasses.replace(CONFIG.model, precision='bfloat16')
)


def remat(config: Config, choice: str) -> Config:
    return dataclasses.replace(config, run=RunConfig(remat=choice))


def one_pair():
    """Return the first pair, with four images per group."""
    batch = test_mesh.batch()
    return {name: x[:1] if name == 'label' else x[:1, :, :4] for name, x in batch.items()}


@functools.cache
def step(choice: str) -> float64_step.Step:
    config = dataclasses.replace(
        remat(CONFIG, choice),
        model=dataclasses.replace(CONFIG.model, racm=False),
        loss=LossConfig(gst=0.0),
    )
    return float64_step.run(config, one_pair(), test_mesh.make_mesh((1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize('choice', ['light', 'full'])
def test_rematerialised_step_is_the_same(choice):
    float64_step.assert_same(step(choice), step('none'))


def test_rematerialisation_keeps_less():
    graph, state = train_state.abstract(CONFIG)
    kept = {
        choice: train_step.kept_bytes(graph, remat(CONFIG, choice), state, one_pair())
        for choice in ('none', 'light', 'full')
    }
    assert kept['none'] > 1.5 * kept['light']
    assert kept['light'] > 1.5 * kept['full']


@pytest.fixture(scope='module')
def outputs():
    """The training pass in both precisions, and how its programs use their arrays."""
    batch = one_pair()
    images = batch['image'][0].astype(np.float32) / 127.5 - 1
    results = []
    for config in (CONFIG, BFLOAT16):
        model = GCoNetPlus(config.model, rngs=nnx.Rngs(0))
        graph, weights = nnx.split(model)

        def run(weights, images, graph=graph):
            model = nnx.merge(graph, weights)
            return nnx.capture(model, layers.BatchMoments)(images, batch['valid'][0])

        results.append((*jax.jit(run)(weights, images), jax.make_jaxpr(run)(weights, images)))
    return results


def test_bfloat16_leaves_what_is_sensitive_in_float32(outputs):
    _, (output, moments, jaxpr) = outputs
    arrays = [*jax.tree.leaves(output), *jax.tree.leaves(moments)]
    assert {x.dtype for x in arrays} == {np.dtype('float32'), np.dtype('bool')}
    types = {}
    for equation in _equations(jaxpr.jaxpr):
        types.setdefault(equation.primitive.name, []).append(equation.outvars[0].aval.dtype)
    # All convolutions except the 1x1 ones for logits: P and T, three side outputs, the GCM.
    half = [dtype == jnp.bfloat16 for dtype in types['conv_general_dilated']]
    assert half.count(False) == 6
    assert half.count(True) > 40
    for name in ('exp', 'logistic', 'rsqrt'):
        assert set(types.get(name, [])) <= {np.dtype('float32')}, name


def test_bfloat16_is_close_to_float32(outputs):
    (exact, _, _), (half, _, _) = outputs
    # Batch statistics over the few pixels of 2 x 2 features differ by a few percent, more in
    # places.
    difference = np.abs(np.asarray(half.maps.prob) - exact.maps.prob)
    assert difference.mean() < 0.015
    assert np.quantile(difference, 0.99) < 0.1


@pytest.mark.parametrize('norm', [False, True])
def test_the_backbone_at_inference_in_bfloat16_is_close_to_float32(norm):
    backbone = VGG16(batch_norm=norm, width=0.25, rngs=nnx.Rngs(0))
    graph, weights = nnx.split(layers.with_running_average(backbone))

    @jax.jit
    def run(weights, images):
        return nnx.merge(graph, weights)(images, jnp.ones(1, bool))

    images = np.random.default_rng(0).standard_normal((1, 64, 64, 3), np.float32)
    for half, exact in zip(
        run(weights, jnp.asarray(images, jnp.bfloat16)), run(weights, images), strict=True
    ):
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=0, atol=0.05)


@pytest.mark.slow
def test_bfloat16_step_moves_float32_parameters():
    graph, state = train_state.create(GCoNetPlus(BFLOAT16.model, rngs=nnx.Rngs(0)), BFLOAT16)
    batch = jax.device_put(one_pair())
    gradients = jax.jit(train_step.gradients, static_argnums=(0, 1))
    grads, metrics, _ = gradients(graph, BFLOAT16, state, batch)
    exact_grads, exact, _ = gradients(graph, CONFIG, state, batch)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {np.dtype('float32')}
    np.testing.assert_allclose(metrics['loss'], exact['loss'], rtol=0.1)
    classifier = [np.asarray(g['classifier']['kernel']).ravel() for g in (grads, exact_grads)]
    assert np.corrcoef(*classifier)[0, 1] > 0.99


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, 'jaxpr', value)
            if hasattr(inner, 'eqns'):
                yield from _equations(inner)
