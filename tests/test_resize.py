"""Resizing by gathers, as on CPUs, matches the matrix products of other devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gconet_jax.interpolation import interpolation_matrix
from gconet_jax.models.resize import gathered, multiplied, resize


@pytest.mark.parametrize('axis', [1, 2])
@pytest.mark.parametrize(('inputs', 'outputs'), [(6, 12), (3, 5), (2, 64), (1, 4), (9, 4), (5, 1)])
def test_gathers_equal_the_product(inputs, outputs, axis):
    rng = np.random.default_rng(0)
    shape = [2, 3, 3, 4]
    shape[axis] = inputs
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    matrix = interpolation_matrix(inputs, outputs)
    expected, expected_vjp = jax.vjp(lambda x: multiplied(x, axis, matrix), x)
    vjp = jax.vjp(lambda x: gathered(x, axis, matrix), x)[1]
    # Call it outside vjp: under vjp it is the matrix product.
    np.testing.assert_allclose(gathered(x, axis, matrix), expected, atol=1e-6)
    gradient = jnp.asarray(rng.standard_normal(expected.shape), jnp.float32)
    np.testing.assert_allclose(vjp(gradient)[0], expected_vjp(gradient)[0], atol=1e-5)


def test_corners_stay_where_they_are():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 4, 5, 2)), jnp.bfloat16)
    larger = resize(x, 9, 11)
    assert larger.shape == (1, 9, 11, 2)
    assert larger.dtype == jnp.bfloat16
    np.testing.assert_array_equal(larger[:, ::8, ::10], x[:, ::3, ::4])
    assert resize(x, 4, 5) is x
