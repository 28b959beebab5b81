"""Strict JAX for every test: eight CPU devices, no silent promotion of types or ranks."""

import os
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
# Most of the time of the tests is compilation. LLVM's optimisations and the newer emitters are most
# of that, and of no use to programs that run once: a step compiles in a sixth of the time.
os.environ['XLA_FLAGS'] = (
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
    '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
)
# The processes of the tests, and the next run, share what they compile.
os.environ['JAX_COMPILATION_CACHE_DIR'] = f'{tempfile.gettempdir()}/gconet-jax-tests-{os.getuid()}'

import jax
import pytest
from absl import flags

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


@pytest.fixture(autouse=True, scope='session')
def parsed_flags():
    """Grain reads absl flags, which must have been parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
