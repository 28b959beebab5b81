"""Our model, losses and step against the outputs of the released code (`tests/golden`)."""

import json

import float64_step
import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from gconet_jax.models.consensus import consensus
from gconet_jax.models.layers import with_running_average
from gconet_jax.training import state as train_state
from gconet_jax.training import step as train_step
from gconet_jax.training.mesh import make_mesh, put_batch, put_replicated
from gconet_jax.weights import torch_gconet


def nchw(x):
    """Transpose (N, h, w, C) to (N, C, h, w)."""
    return np.asarray(x).transpose(0, 3, 1, 2)


def relative_to_largest(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize('path', golden_cases.cases('eval_*.npz'), ids=lambda p: p.stem)
def test_eval(path):
    meta, golden = golden_cases.load(path)
    model = with_running_average(golden_cases.released_model(meta))
    graph, weights = nnx.split(model)
    x = golden_cases.images(meta, meta['n'])

    @jax.jit
    def run(weights, x):
        model = nnx.merge(graph, weights)
        valid = jnp.ones((1, meta['n']), bool)
        features = model.backbone(x, valid[0])
        attended = model.gam(features[-1][None], valid)
        weighted = features[-1] * consensus(attended, valid)[0]
        p5 = model.decoder.stages[0].block(model.decoder.top(weighted, valid[0]), valid[0])
        p1 = model.decoder(weighted, features[:-1], x.shape[1:3], valid[0]).p1
        parts = {
            'x1_mean': features[0].mean((0, 1, 2)),
            'x5': features[-1],
            'gam_out': attended[0],
            'weighted_x5': weighted,
            'p5': p5,
            'p1': p1,
        }
        return parts, model.segment(x[None], valid)

    parts, maps = run(weights, x)
    assert relative_to_largest(parts['x1_mean'], golden['x1_mean']) < 1e-4
    for name in ('x5', 'gam_out', 'weighted_x5', 'p5'):
        assert relative_to_largest(nchw(parts[name])[:, ::16], golden[name]) < 1e-4, name
    assert relative_to_largest(nchw(parts['p1'])[:, :, ::16, ::16], golden['p1']) < 1e-4
    assert bool(maps.fell_back) == meta['fallback']
    np.testing.assert_allclose(maps.prob[0, :, ::4, ::4], golden['prob'][:, 0], atol=1e-4)
    np.testing.assert_allclose(maps.thresh[0, :, ::4, ::4], golden['thresh'][:, 0], atol=1e-4)
    pred = jax.nn.sigmoid(maps.logits[0])
    np.testing.assert_allclose(pred, golden['pred'][:, 0], atol=5e-3)


def case(path, pairs, images):
    """Return a case on `pairs` x `images` devices, with its pair repeated `pairs` times."""
    slow = pytest.mark.slow if pairs * images > 1 else ()
    return pytest.param((path, pairs, images), id=f'{path.stem}-{pairs}x{images}', marks=slow)


def meshes(path):
    n = golden_cases.load(path)[0]['n']
    return [(1, 1), (1, n), (2, 1), (2, n)]


@pytest.fixture(
    scope='module',
    params=[case(path, *m) for path in golden_cases.cases('train_*.npz') for m in meshes(path)],
)
def trained(request):
    """A training case, its expected arrays, and the result of one of our steps."""
    path, pairs, images = request.param
    meta, golden = golden_cases.load(path)
    config = golden_cases.released_config(meta)
    model = golden_cases.released_model(meta)
    mesh = make_mesh(pairs, (meta['n'],), shape=(pairs, images))
    graph, state = train_state.create(model, config)
    state = put_replicated(state, mesh)
    batch = jax.tree.map(lambda x: np.repeat(x, pairs, axis=0), golden_cases.pair_batch(meta))
    batch = put_batch(batch, mesh)
    as_params = ravel_pytree(state.params)[1]
    after, metrics = train_step.make_train_step(graph, config, mesh)(state, batch)
    metrics['loss'] /= pairs
    # After one step, Adam's first moment is the gradient times a constant.
    grads = as_params(after.opt_state[0].mu / (1 - config.train.b1) / pairs)
    merged = nnx.merge(graph, after.params, after.frozen, after.batch_stats)
    meta |= {'pairs': pairs, 'devices': pairs * images}
    return meta, golden, grads, metrics, torch_gconet.variables(merged), (graph, after)


def by_torch_name(graph, tree, after):
    """Return the leaves of `tree`, a tree like the params, by their released names."""
    frozen = jax.tree.map(jnp.zeros_like, after.frozen)
    stats = jax.tree.map(jnp.zeros_like, after.batch_stats)
    return torch_gconet.variables(nnx.merge(graph, tree, frozen, stats))


def test_losses(trained):
    _, golden, _, metrics, _, _ = trained
    expected = json.loads(str(golden['losses']))
    ours = {
        'total': 'loss',
        'bce': 'bce',
        'iou_sum': 'iou',
        'triplet': 'gst',
        'cls': 'acm',
        'cls_mask': 'racm',
        'contrast': 'gcm',
    }
    for name, value in expected.items():
        bound = 2e-4 if name == 'triplet' else 1e-5
        np.testing.assert_allclose(metrics[ours[name]], value, rtol=bound, err_msg=name)


def test_k_switch(trained):
    meta, _, _, metrics, _, _ = trained
    assert bool(metrics['k_fell_back']) == meta['fallback']


def norm_errors(golden, variables):
    """Return relative errors of the gradient norms, except for those that are only rounding."""
    names = json.loads(str(golden['grad_names']))
    expected = golden['grad_norms']
    norms = np.array([np.linalg.norm(np.asarray(variables[name][...]).ravel()) for name in names])
    large = expected > 1e-4 * expected.max()
    return np.abs(norms - expected)[large] / expected[large]


def test_gradient_norms(trained):
    _, golden, grads, _, _, (graph, after) = trained
    error = norm_errors(golden, by_torch_name(graph, grads, after))
    # These errors are rounding alone and depend on the processor and the order of sums: the 0.9
    # quantile is 1.8e-3 to 2.7e-3, where the released code's own float32 is 1.6e-3 from float64,
    # and the largest error is 0.015 to 0.034. The next test checks the gradients without rounding.
    assert np.quantile(error, 0.9) < 3e-3
    assert error.max() < 5e-2


@pytest.mark.parametrize('path', golden_cases.cases('train_*.npz'), ids=lambda path: path.stem)
def test_gradient_norms_in_float64(path):
    meta, golden = golden_cases.load(path)
    config = golden_cases.released_config(meta)
    with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
        graph, state = train_state.create(golden_cases.released_model(meta), config)
        batch = float64_step.widened(jax.tree.map(np.asarray, golden_cases.pair_batch(meta)))
        of_step = jax.jit(lambda s, b: train_step.gradients(graph, config, s, b)[0])
        grads = of_step(float64_step.widened(state), batch)
        error = norm_errors(golden, by_torch_name(graph, grads, state))
    assert np.quantile(error, 0.9) < 2e-3
    assert error.max() < 3e-2


def test_parameters_after_adam(trained):
    _, golden, _, _, variables, _ = trained
    errors = []
    for key, expected in golden.items():
        if not key.startswith('after/'):
            continue
        value = np.asarray(variables[key.removeprefix('after/')][...])
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        flat = value.T.ravel() if value.ndim == 2 else value.ravel()
        errors.append(np.abs(flat[:: max(1, flat.size // 64)][: expected.size] - expected))
    assert errors
    assert (np.concatenate(errors) < 2e-5).mean() >= 0.95


def test_running_statistics(trained):
    meta, golden, _, _, variables, _ = trained
    if meta['pairs'] > 1:
        pytest.skip('they move once for each pair')
    checked = 0
    for key, expected in golden.items():
        if key.startswith('bn/'):
            actual = np.asarray(variables[key.removeprefix('bn/')][...])
            assert relative_to_largest(actual, expected) < 2e-3, key
            checked += 1
    assert checked


def test_moments_are_folded_in_released_order():
    stats = {
        'norm': {'mean': jnp.zeros(1), 'var': jnp.ones(1)},
        'unseen': {'mean': jnp.ones(1), 'var': jnp.ones(1)},
    }
    passes = (
        (jnp.array([[1.0], [3.0]]), jnp.ones((2, 1))),
        (jnp.array([[2.0], [4.0]]), jnp.ones((2, 1))),
    )
    updated = train_step.update_batch_stats(stats, {'norm': {'moments': passes}})
    expected = 0.0
    for value in (1.0, 2.0, 3.0, 4.0):
        expected = 0.9 * expected + 0.1 * value
    np.testing.assert_allclose(updated['norm']['mean'], [expected], rtol=1e-6)
    np.testing.assert_array_equal(updated['unseen']['mean'], [1.0])
