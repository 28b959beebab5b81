"""The output directory."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gconet_jax.errors import InputError


@contextlib.contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Create the output directory, check that it is writable, and run a block that writes to it.

    Raises:
        InputError: `out` cannot be created or written to, or writing failed in the block, for
            example on a full disk.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        yield
    except OSError as error:
        raise InputError(
            f'cannot write to {out}: {error}; OUT, the last argument, must be a folder with room '
            'that may be written to'
        ) from error
