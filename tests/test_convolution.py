"""The convolution and its gradients are XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gconet_jax.models import convolution
from gconet_jax.models.convolution import convolve, kernel_gradient


def xla(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def arrays(height, width, inputs, outputs, size):
    rng = np.random.default_rng(height)
    shapes = (2, height, width, inputs), (size, size, inputs, outputs)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize(('inputs', 'outputs'), [(4, 8), (8, 4), (5, 1)])
@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('block', [1, 200, 2**19])  # one row at a time, a few, all of them
def test_values_and_gradients(monkeypatch, inputs, outputs, size, block):
    monkeypatch.setattr(convolution, 'BLOCK', block)
    monkeypatch.setattr(convolution, 'FEWEST_POSITIONS', 0)
    x, kernel = arrays(12, 7, inputs, outputs, size)

    def total(function):
        return lambda x, kernel: jnp.sin(function(x, kernel)).sum()

    np.testing.assert_allclose(convolve(x, kernel), xla(x, kernel), atol=1e-5)
    ours = jax.grad(total(convolve), (0, 1))(x, kernel)
    for got, expected in zip(ours, jax.grad(total(xla), (0, 1))(x, kernel), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_under_vmap():
    x, kernel = arrays(8, 8, 3, 6, 3)
    gradient = jax.vmap(lambda x: kernel_gradient(x, xla(x, kernel), 3))(jnp.stack([x, 2 * x]))
    expected = kernel_gradient(x, xla(x, kernel), 3)
    np.testing.assert_allclose(gradient, jnp.stack([expected, 4 * expected]), rtol=1e-5)


def test_large_kernels_and_small_images_are_left_to_xla():
    small, large = (arrays(64, 64, n, n, 3) for n in (16, 256))
    few = arrays(32, 64, 16, 16, 3)
    assert 'custom_vjp' in str(jax.make_jaxpr(convolve)(*small))
    for left in (large, few):
        assert 'custom_vjp' not in str(jax.make_jaxpr(convolve)(*left))
