"""The three forms of the similarity compute the same function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gconet_jax.affinity import best_matches, group_affinity, search_by_image
from gconet_jax.affinity_kernel import search
from gconet_jax.config import ModelConfig
from gconet_jax.models import consensus
from gconet_jax.models.consensus import GroupAffinity
from gconet_jax.models.gconet_plus import GCoNetPlus

FORMS = ('einsum', 'blockwise', 'pallas')


def features(g, n, s, d, dtype=jnp.float32):
    rng = np.random.default_rng(n * s)
    return [jnp.asarray(rng.standard_normal((g, n, s, d)), dtype) for _ in range(2)]


@pytest.mark.parametrize('form', FORMS)
def test_against_a_loop(form):
    query, key = features(2, 3, 4, 5)
    valid = np.array([[True, True, True], [True, True, False]])
    actual = group_affinity(query, key, jnp.asarray(valid), form)
    query, key = np.asarray(query), np.asarray(key)
    for g in range(2):
        members = np.flatnonzero(valid[g])
        for n in members:
            for s in range(4):
                best = [max(query[g, n, s] @ key[g, m, t] for t in range(4)) for m in members]
                np.testing.assert_allclose(actual[g, n, s], np.mean(best), rtol=1e-5)


@pytest.mark.parametrize('form', FORMS[1:])
@pytest.mark.parametrize('shape', [(2, 5, 49, 96), (1, 3, 256, 64), (1, 1, 300, 8)])
def test_forward_and_gradients_are_those_of_the_einsum(form, shape):
    query, key = features(*shape)
    g, n, s, _ = shape
    valid = jnp.arange(n)[None] < jnp.array([n, max(n - 2, 1)])[:g, None]
    weight = jnp.asarray(np.random.default_rng(1).standard_normal((g, n, s)), jnp.float32)
    weight *= valid[..., None].astype(jnp.float32)

    def both(form):
        def total(query, key):
            affinity = group_affinity(query, key, valid, form)
            return (weight * affinity * affinity).sum(), affinity

        return jax.jit(jax.grad(total, (0, 1), has_aux=True))(query, key)

    gradients, affinity = both(form)
    expected_gradients, expected = both('einsum')
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(affinity, expected, atol=1e-5 * scale)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(jnp.abs(theirs).max()))
    padding = np.asarray(~valid)
    assert not np.asarray(gradients[1])[padding].any()  # padding has no effect


@pytest.mark.parametrize('form', FORMS[1:])
def test_under_vmap_and_in_bfloat16(form):
    pairs = [jnp.stack(x) for x in zip(*(features(2, n, 16, 32) for n in (4, 4)), strict=True)]
    pairs = [x.astype(jnp.bfloat16) for x in pairs]
    valid = jnp.ones((2, 2, 4), bool)

    def gradients(form):
        total = lambda q, k, v: (group_affinity(q, k, v, form) ** 2).sum()  # noqa: E731
        return jax.jit(jax.vmap(jax.grad(total, (0, 1))))(*pairs, valid)

    affinity = jax.vmap(functools.partial(group_affinity, form=form))(*pairs, valid)
    expected = jax.vmap(functools.partial(group_affinity, form='einsum'))(*pairs, valid)
    assert affinity.dtype == jnp.float32
    np.testing.assert_allclose(affinity, expected, rtol=1e-5)
    for ours, theirs in zip(gradients(form), gradients('einsum'), strict=True):
        assert ours.dtype == jnp.bfloat16
        difference = np.abs(np.asarray(ours - theirs, np.float32))
        assert np.quantile(difference, 0.99) < 0.02 * float(jnp.abs(theirs).max())


@pytest.mark.parametrize('form', FORMS[1:])
def test_the_first_of_equal_matches_has_the_gradient(form):
    query = jnp.ones((1, 1, 1, 4))
    key = jnp.ones((1, 1, 3, 4))
    gradient = jax.grad(lambda key: best_matches(query, key, form).sum())(key)
    np.testing.assert_array_equal(gradient[0, 0, :, 0], [1, 0, 0])


def test_more_images_of_keys_than_of_queries():
    query, key = features(1, 4, 9, 16)
    whole = best_matches(query, key, 'blockwise')
    part = best_matches(query[:, 1:2], key, 'blockwise')
    assert whole.shape == (1, 4, 9, 4)
    np.testing.assert_allclose(part, whole[:, 1:2], rtol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(2, 5, 49, 96), (1, 3, 256, 64), (1, 1, 300, 8)])
def test_the_kernel_finds_what_the_blocks_find(shape, dtype):
    query, key = features(*shape, dtype)
    g, n, s, d = shape
    query = query.reshape(g, n * s, d)
    best, at = search(query, key, interpret=True)
    expected, expected_at = search_by_image(query, key)
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(best, expected, atol=1e-5 * scale)
    assert (np.asarray(at) == np.asarray(expected_at)).mean() > 0.999


def test_the_matrix_is_nowhere():
    """No temporary of the compiled gradient is as large as the similarity."""
    n, s, d = 64, 64, 32
    shape = jax.ShapeDtypeStruct((1, n, s, d), jnp.float32)
    valid = jax.ShapeDtypeStruct((1, n), bool)

    def temporary(form):
        total = lambda q, k, v: (group_affinity(q, k, v, form) ** 2).sum()  # noqa: E731
        compiled = jax.jit(jax.grad(total, (0, 1))).lower(shape, shape, valid).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    matrix = 4 * (n * s) ** 2
    assert temporary('einsum') > matrix
    assert temporary('blockwise') < matrix / 8


def test_the_form_of_the_config_is_used(monkeypatch):
    forms, real = [], consensus.group_affinity
    monkeypatch.setattr(
        consensus, 'group_affinity', lambda q, k, v, form: forms.append(form) or real(q, k, v, form)
    )
    for form in ('einsum', 'blockwise'):
        model = GCoNetPlus(ModelConfig(width=0.0625, affinity=form), rngs=nnx.Rngs(0))
        model.gam(jnp.ones((1, 2, 2, 2, 32)), jnp.ones((1, 2), bool))
    assert forms == ['einsum', 'blockwise']


def test_a_network_trained_with_the_kernel_runs_without_a_gpu():
    x5, valid = features(1, 2, 4, 16)[0].reshape(1, 2, 2, 2, 16), jnp.ones((1, 2), bool)
    with_kernel, plain = (
        GroupAffinity(16, affinity=form, rngs=nnx.Rngs(0)) for form in ('pallas', 'auto')
    )
    np.testing.assert_array_equal(with_kernel(x5, valid), plain(x5, valid))
