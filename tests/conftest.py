"""Strict JAX for every test: eight CPU devices, no silent promotion of types or ranks."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'

import jax
import pytest
from absl import flags

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')


@pytest.fixture(autouse=True, scope='session')
def parsed_flags():
    """Grain reads absl flags, which must have been parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
