"""Strict JAX for every test: eight CPU devices, no silent promotion of types or ranks."""

import os
import tempfile
from pathlib import Path

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'

import jax
import pytest
from absl import flags

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
# Most of the time of the tests is compilation, of the same programs in each process and each run.
cache = Path(tempfile.gettempdir()) / f'gconet-jax-tests-{os.getuid()}'
jax.config.update('jax_compilation_cache_dir', str(cache))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)


@pytest.fixture(autouse=True, scope='session')
def parsed_flags():
    """Grain reads absl flags, which must have been parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
