"""Files that are there whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place beside `path`, of the same suffix, for what becomes `path` when the block ends well.

    The folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.stem}.partial{path.suffix}')
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
