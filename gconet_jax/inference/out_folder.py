"""The folder that results go to."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gconet_jax.errors import InputError


@contextlib.contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """A block that writes to the folder `out`, which is made and tried before the block begins.

    Raises:
        InputError: it cannot be made or written to, before the block or, as on a full disk, in it.
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
