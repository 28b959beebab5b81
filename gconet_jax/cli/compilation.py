"""Compiled programs, kept from one command to the next."""

import os
from pathlib import Path


def keep_programs() -> None:
    """On disk, in `~/.cache/gconet-jax`, or where JAX_COMPILATION_CACHE_DIR says."""
    import jax

    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'gconet-jax'
        jax.config.update('jax_compilation_cache_dir', str(cache))
