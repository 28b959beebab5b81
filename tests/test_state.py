"""The optimiser, its schedules, frozen parts and moving averages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gconet_jax.config import Config, ConfigError, LossConfig, ModelConfig, TrainConfig
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.training import state
from gconet_jax.training.state import Skipped
from gconet_jax.training.step import averages, guard, make_train_step

CONFIG = Config(
    model=ModelConfig(width=0.0625, num_classes=4, racm=False), loss=LossConfig(gst=0.0)
)


def create(**train_fields):
    config = dataclasses.replace(CONFIG, train=TrainConfig(steps=10, **train_fields))
    return config, *state.create(GCoNetPlus(config.model, rngs=nnx.Rngs(0)), config)


def batch():
    rng = np.random.default_rng(0)
    return jax.device_put(
        {
            'image': rng.integers(0, 256, (1, 2, 2, 32, 32, 3), np.uint8),
            'mask': rng.integers(0, 256, (1, 2, 2, 32, 32), np.uint8),
            'label': np.array([[0, 1]], np.int32),
            'valid': np.ones((1, 2, 2), bool),
        }
    )


def norms(before, after):
    """Return how far each part of the model moved."""
    return {
        name: max(
            float(abs(a - b).max())
            for a, b in zip(jax.tree.leaves(before[name]), jax.tree.leaves(part), strict=True)
        )
        for name, part in after.items()
    }


def test_schedules():
    def rates(**fields):
        schedule = state.make_schedule(TrainConfig(steps=100, learning_rate=1.0, **fields))
        return [round(float(schedule(step)), 3) for step in (0, 5, 10, 49, 50, 75, 99)]

    assert rates() == [1.0] * 7
    assert rates(warmup_steps=10) == [0, 0.5, 1, 1, 1, 1, 1]
    assert rates(schedule='step') == [1, 1, 1, 1, 0.1, 0.01, 0.01]
    assert rates(schedule='step', warmup_steps=10) == [0, 0.5, 1, 1, 0.1, 0.01, 0.01]
    cosine = rates(schedule='cosine')
    assert cosine[0] == 1
    assert cosine[4] == 0.5
    assert cosine[-1] < 0.001


def test_weight_decay_spares_vectors_and_clipping_bounds():
    params = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}
    nothing = jax.tree.map(jnp.zeros_like, params)

    def update(grads, **fields):
        optimizer = state.make_optimizer(TrainConfig(steps=1, learning_rate=0.1, **fields))
        with jax.numpy_dtype_promotion('standard'):
            return optimizer.update(grads, optimizer.init(params), params)

    decayed, _ = update(nothing, weight_decay=0.5)
    np.testing.assert_allclose(decayed['kernel'], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(decayed['bias'], 0)
    _, opt_state = update(jax.tree.map(lambda x: 100 * x, params), clip_norm=1.0)
    moments = [x for x in jax.tree.leaves(opt_state) if x.ndim]
    np.testing.assert_allclose(np.linalg.norm(moments[0]), 0.1, rtol=1e-5)


def test_adam_of_the_paper():
    """The second moment only has an effect from the second step on."""
    config = TrainConfig(steps=3, learning_rate=0.1)
    assert (config.b1, config.b2) == (0.9, 0.99)
    optimizer = state.make_optimizer(config)
    params = {'kernel': jnp.zeros(2)}
    opt_state = optimizer.init(params)
    first, second = np.zeros(2), np.zeros(2)
    for t, grad in enumerate(([1.0, -2.0], [0.1, 3.0], [0.5, 0.0]), start=1):
        with jax.numpy_dtype_promotion('standard'):
            update, opt_state = optimizer.update({'kernel': jnp.array(grad)}, opt_state, params)
        first = 0.9 * first + 0.1 * np.array(grad)
        second = 0.99 * second + 0.01 * np.square(grad)
        expected = -0.1 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.99**t)) + 1e-8)
        np.testing.assert_allclose(update['kernel'], expected, rtol=1e-5)


@pytest.fixture(scope='module')
def partly_frozen():
    """A new state and its step, compiled once."""
    config, graph, before = create(
        frozen=('backbone/stages/0', 'decoder/top'),
        backbone_rate=0.1,
        learning_rate=1e-3,
        ema=0.5,
    )
    return before, make_train_step(graph, config)


def test_parts_are_frozen_and_the_backbone_has_a_rate_of_its_own(partly_frozen):
    before, step = partly_frozen
    assert set(before.frozen['decoder']) == {'top'}
    assert set(before.frozen['backbone']['stages']) == {0}
    assert 'top' not in before.params['decoder']
    after, _ = step(jax.tree.map(jnp.copy, before), batch())
    moved = norms(before.params, after.params)
    # Adam's first step moves every parameter with a gradient by the learning rate.
    np.testing.assert_allclose(moved['backbone'], 1e-4, rtol=1e-2)
    np.testing.assert_allclose(moved['decoder'], 1e-3, rtol=1e-2)


def test_an_unknown_frozen_part_is_named():
    with pytest.raises(ConfigError, match=r'config\.train\.frozen: the model has no back, x'):
        create(frozen=('back', 'x', 'gam'))


def test_overview_counts_what_is_trained():
    _, _, created = create(frozen=('backbone',))
    rows = {line.split()[0]: line.split()[-2:] for line in state.overview(created).splitlines()[1:]}
    assert rows['backbone'][1] == '0'
    assert rows['gam'][0] == rows['gam'][1] != '0'
    total = sum(x.size for x in jax.tree.leaves((created.params, created.frozen)))
    assert rows['in'][0] == f'{total:,}'


def test_averages_follow_the_weights(partly_frozen):
    before, step = partly_frozen
    before = jax.tree.map(jnp.copy, before)
    expected = jax.tree.map(np.array, before.params['gam'])
    for number in range(3):
        before, _ = step(before, batch())
        decay = min(0.5, (1 + number) / (10 + number))
        expected = jax.tree.map(
            lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new),
            expected,
            before.params['gam'],
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        before.ema['params']['gam'],
        expected,
    )
    assert set(before.ema) == {'params', 'batch_stats'}
    swapped = state.averaged(before)
    assert swapped.params is before.ema['params']
    assert swapped.batch_stats is before.ema['batch_stats']


def test_a_gradient_that_is_not_finite_is_skipped_under_a_finite_loss():
    zero = jnp.int32(0)
    skipped = Skipped(zero, zero, zero, zero - 1)
    given = [(1.0, np.inf), (1.0, np.nan), (np.nan, 1.0), (np.inf, np.inf), (1.0, 2.0)]
    for step, (loss, norm) in enumerate(given):
        skipped, usable = guard(skipped, jnp.int32(step), jnp.float32(loss), jnp.float32(norm))
        assert bool(usable) == (step == 4)
        if step == 3:
            assert skipped == Skipped(loss=2, gradient=2, in_a_row=4, last=3)
    assert skipped == Skipped(loss=2, gradient=2, in_a_row=0, last=3)


def test_without_a_decay_there_are_no_averages():
    _, _, created = create()
    assert created.ema == {}
    assert averages(created, created.params, created.batch_stats, 0.0) == {}
