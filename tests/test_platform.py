"""The form of an operation depends on the device that runs it, not on JAX's default backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gconet_jax.affinity import best_matches
from gconet_jax.config import ModelConfig
from gconet_jax.models.convolution import convolve
from gconet_jax.models.gconet_plus import GCoNetPlus
from gconet_jax.models.layers import with_running_average
from gconet_jax.models.resize import resize

X = jax.ShapeDtypeStruct((2, 16, 16, 64), jnp.float32)
KERNEL = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)
POSITIONS = jax.ShapeDtypeStruct((1, 4, 256, 64), jnp.float32)
HALF_POSITIONS = jax.ShapeDtypeStruct((1, 4, 256, 64), jnp.bfloat16)


def double(x):
    return resize(x, 32, 32)


def matches(query, key):
    return best_matches(query, key, 'pallas')


# Text in the program for one platform that is absent in the program for the other.
FORMS = [
    pytest.param(convolve, (X, KERNEL), {'cuda': 'stablehlo.convolution'}, id='convolution'),
    pytest.param(double, (X,), {'cpu': 'stablehlo.gather', 'cuda': 'dot_general'}, id='resize'),
]


@pytest.mark.parametrize(('function', 'shapes', 'marks'), FORMS)
def test_one_trace_gives_each_platform_its_form(function, shapes, marks):
    traced = jax.jit(function).trace(*shapes)
    for platform in ('cpu', 'cuda', 'cpu'):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        for owner, mark in marks.items():
            assert (mark in text) == (owner == platform), (platform, mark)


@pytest.mark.parametrize(
    ('function', 'shape'), [(matches, POSITIONS), (best_matches, HALF_POSITIONS)]
)
def test_the_kernel_is_in_the_trace_and_in_no_program_for_the_cpu(function, shape):
    traced = jax.jit(function).trace(shape, shape)
    assert 'pallas_call' in str(traced.jaxpr)
    assert 'triton' not in traced.lower(lowering_platforms=('cpu',)).as_text()


@pytest.mark.parametrize(('function', 'shapes', 'marks'), FORMS)
def test_an_export_for_two_platforms_has_both_forms(function, shapes, marks):
    exported = jax.export.export(jax.jit(function), platforms=('cpu', 'cuda'))(*shapes)
    assert all(mark in exported.mlir_module() for mark in marks.values())
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal(x.shape), x.dtype) for x in shapes]
    np.testing.assert_allclose(exported.call(*arrays), function(*arrays), atol=1e-4)


def test_a_network_traced_once_is_right_on_each_platform():
    model = GCoNetPlus(ModelConfig(width=1 / 16), rngs=nnx.Rngs(0))
    model = with_running_average(model)
    graph, weights = nnx.split(model)

    @jax.jit
    def segment(weights, images):
        return nnx.merge(graph, weights).segment(images, jnp.ones((1, 2), bool)).logits

    traced = segment.trace(weights, jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32))
    on_gpu, on_cpu = (
        traced.lower(lowering_platforms=(platform,)).as_text() for platform in ('cuda', 'cpu')
    )
    assert 'stablehlo.gather' in on_cpu
    assert 'stablehlo.gather' not in on_gpu
