"""Batch norm folded into the convolutions, for every network that the configs allow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_cases import cases, images, load, released_model
from test_predictor import groups, make_model, whole_batch

from configs import ablations
from gconet_jax.config import Config, ModelConfig, released
from gconet_jax.config_dict import from_config_dict
from gconet_jax.models.layers import BatchNorm
from gconet_jax.weights.folding import fold
from gconet_jax.weights.torch_gconet import variables

# The distinct networks of configs/; other config files only change data and training.
NETWORKS = {
    dataclasses.replace(from_config_dict(ablations.get_config(row)).model): row
    for row in ablations.ROWS
} | {released(Config()).model: 'released'}
# Networks in no config file that the command line allows.
MIXED = {
    ModelConfig(backbone='vgg16'): 'decoder_only',
    ModelConfig(batch_norm=False): 'backbone_only',
    ModelConfig(gam=False, gcm=False): 'no_group',
}


def changes(config: ModelConfig) -> dict:
    """Return the fields that differ from the default, for `make_model`, which sets the width."""
    default = ModelConfig()
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(default, field.name)
    }


def trained_model(config: ModelConfig):
    """Return a small model with scales and shifts away from 1 and 0, some of them negative."""
    model = make_model(**changes(config))
    rng = np.random.default_rng(2)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm):
            n = module.scale.shape
            sign = np.where(rng.random(n) < 0.2, -1, 1)
            module.scale.set_value(jnp.asarray(sign * rng.uniform(0.5, 1.5, n), jnp.float32))
            module.bias.set_value(jnp.asarray(0.2 * rng.standard_normal(n), jnp.float32))
    return model


def has_batch_norm(model) -> bool:
    return any(isinstance(module, BatchNorm) for _, module in nnx.iter_modules(model))


@pytest.mark.parametrize('config', [*NETWORKS, *MIXED], ids=[*NETWORKS.values(), *MIXED.values()])
def test_the_maps_stay(config):
    model = trained_model(config)
    folded = fold(model)
    assert not has_batch_norm(folded)
    (group,) = groups(3)
    expected, got = whole_batch(model, group), whole_batch(folded, group)
    np.testing.assert_allclose(got.prob, expected.prob, rtol=0, atol=1e-4)
    np.testing.assert_allclose(got.thresh, expected.thresh, rtol=0, atol=1e-4)
    assert expected.prob.std() > 1e-3  # the maps are not constant


def test_without_batch_norm_every_bit_stays():
    config = ModelConfig(backbone='vgg16', batch_norm=False)
    model = trained_model(config)
    folded = fold(model)
    assert folded.config == model.config
    expected, got = variables(model), variables(folded)
    assert got.keys() == expected.keys()
    for name, variable in expected.items():
        np.testing.assert_array_equal(got[name][...], variable[...], err_msg=name)


def test_the_model_is_left_as_it_was():
    model = trained_model(ModelConfig())
    before = {name: np.asarray(variable[...]) for name, variable in variables(model).items()}
    fold(model)
    for name, variable in variables(model).items():
        np.testing.assert_array_equal(variable[...], before[name], err_msg=name)


@pytest.mark.parametrize('path', cases('eval_*_128*.npz'), ids=lambda p: p.stem)
def test_golden(path):
    meta, golden = load(path)
    graph, weights = nnx.split(fold(released_model(meta)))
    x = jnp.asarray(images(meta, meta['n']))[None]

    @jax.jit
    def run(weights, x):
        return nnx.merge(graph, weights).segment(x, jnp.ones(x.shape[:2], bool))

    maps = run(weights, x)
    assert bool(maps.fell_back) == meta['fallback']
    np.testing.assert_allclose(maps.prob[0, :, ::4, ::4], golden['prob'][:, 0], atol=1e-4)
    np.testing.assert_allclose(maps.thresh[0, :, ::4, ::4], golden['thresh'][:, 0], atol=1e-4)
    np.testing.assert_allclose(nnx.sigmoid(maps.logits[0]), golden['pred'][:, 0], atol=5e-3)
