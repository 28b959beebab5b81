"""On-disk cache of compiled programs, shared by all commands."""

import os
from pathlib import Path


def keep_programs() -> None:
    """Cache compiled programs in `~/.cache/gconet-jax`, or in JAX_COMPILATION_CACHE_DIR."""
    import jax

    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'gconet-jax'
        jax.config.update('jax_compilation_cache_dir', str(cache))
