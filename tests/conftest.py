"""Strict JAX for every test: eight CPU devices, no implicit promotion of types or ranks.

The tests run on the CPU unless JAX_PLATFORMS names another platform:

    JAX_PLATFORMS=cuda python -m pytest tests/test_parity.py
"""

# ruff: noqa: E402  JAX reads the environment when it is imported.

import os
import subprocess
import sys
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_NUM_CPU_DEVICES', '8')

# Compilation dominates the time of the tests, and LLVM's optimisations and the newer emitters
# dominate compilation. Programs that run once do not need them.
QUICK_COMPILATION = (
    '--xla_backend_optimization_level=0',
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
)


def known_flags(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `flags` that the installed XLA knows; it aborts on unknown flags."""

    def accepts(some: tuple[str, ...]) -> bool:
        command = [sys.executable, '-c', 'import jax; jax.devices("cpu")']
        env = os.environ | {'XLA_FLAGS': ' '.join(some), 'JAX_PLATFORMS': 'cpu'}
        return subprocess.run(command, env=env, capture_output=True).returncode == 0

    return flags if accepts(flags) else tuple(flag for flag in flags if accepts((flag,)))


if 'PYTEST_XDIST_WORKER' not in os.environ:  # workers inherit the settings of the first process
    os.environ['XLA_FLAGS'] = ' '.join(known_flags(QUICK_COMPILATION))
# Share compiled programs between the processes of the tests, and with the next run.
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
    """Mark absl flags as parsed, which Grain requires before reading them."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
