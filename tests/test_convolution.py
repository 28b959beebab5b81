"""The convolution and its gradients match XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gconet_jax.models import convolution
from gconet_jax.models.convolution import convolve, kernel_gradient
from gconet_jax.models.winograd import winograd


def xla(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def total(function):
    return lambda x, kernel: jnp.sin(function(x, kernel)).sum()


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

    np.testing.assert_allclose(convolve(x, kernel), xla(x, kernel), atol=1e-5)
    ours = jax.grad(total(convolve), (0, 1))(x, kernel)
    for got, expected in zip(ours, jax.grad(total(xla), (0, 1))(x, kernel), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_half_floats_are_summed_in_float32(monkeypatch):
    monkeypatch.setattr(convolution, 'BLOCK', 1)  # one row at a time: many sums
    x, kernel = arrays(128, 8, 4, 8, 3)
    x, gradient = x + 0.3, xla(x, kernel) + 0.3
    exact = kernel_gradient(x, gradient, 3)
    half = kernel_gradient(x.astype(jnp.bfloat16), gradient.astype(jnp.bfloat16), 3)
    assert half.dtype == jnp.bfloat16
    error = jnp.linalg.norm(half.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
    assert error < 0.005


def test_under_vmap():
    x, kernel = arrays(8, 8, 3, 6, 3)
    gradient = jax.vmap(lambda x: kernel_gradient(x, xla(x, kernel), 3))(jnp.stack([x, 2 * x]))
    expected = kernel_gradient(x, xla(x, kernel), 3)
    np.testing.assert_allclose(gradient, jnp.stack([expected, 4 * expected]), rtol=1e-5)


@pytest.mark.parametrize(('height', 'width'), [(2, 2), (8, 12), (16, 6)])
@pytest.mark.parametrize(('inputs', 'outputs'), [(3, 5), (8, 1)])
def test_winograd(height, width, inputs, outputs):
    x, kernel = arrays(height, width, inputs, outputs, 3)
    np.testing.assert_allclose(winograd(x, kernel), xla(x, kernel), atol=2e-5)
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(np.asarray(a, np.float64)) for a in (x, kernel))
        np.testing.assert_allclose(winograd(x, kernel), xla(x, kernel), atol=1e-13)


def test_values_and_gradients_of_deep_layers():
    x, kernel = arrays(16, 32, 64, 80, 3)
    kernel /= 24  # so that results are about 1
    assert multiplies_less(x, kernel)
    np.testing.assert_allclose(convolve(x, kernel), xla(x, kernel), atol=1e-5)
    ours = jax.grad(total(convolve), (0, 1))(x, kernel)
    for got, expected in zip(ours, jax.grad(total(xla), (0, 1))(x, kernel), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-4)


def multiplies_less(x, kernel):
    return 'stablehlo.convolution' not in jax.jit(convolve).lower(x, kernel).as_text()


@pytest.mark.parametrize(
    ('height', 'inputs', 'outputs', 'size', 'dtype'),
    [
        (14, 64, 64, 3, jnp.float32),  # few positions
        (66, 64, 64, 3, jnp.float32),  # many
        (17, 64, 64, 3, jnp.float32),  # odd
        (16, 32, 64, 3, jnp.float32),
        (16, 64, 32, 3, jnp.float32),
        (16, 64, 64, 1, jnp.float32),
        (16, 64, 64, 3, jnp.bfloat16),
    ],
)
def test_others_are_left_to_xla(height, inputs, outputs, size, dtype):
    x, kernel = (a.astype(dtype) for a in arrays(height, height, inputs, outputs, size))
    assert not multiplies_less(x, kernel)


def test_the_backward_pass_keeps_the_input_and_the_kernel_alone():
    x, kernel = arrays(16, 16, 64, 64, 3)
    kept = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(convolve, *a)[1], x, kernel))
    assert sum(leaf.size for leaf in kept) == x.size + kernel.size


def test_gradients_of_large_kernels_and_small_images_are_left_to_xla():
    small, large = (arrays(64, 66, n, n, 3) for n in (16, 256))
    few = arrays(32, 64, 16, 16, 3)
    assert 'custom_vjp' in str(jax.make_jaxpr(convolve)(*small))
    for left in (large, few):
        assert 'custom_vjp' not in str(jax.make_jaxpr(convolve)(*left))
