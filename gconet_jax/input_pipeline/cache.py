"""The cache of a set: its images and masks, decoded once to training size and memory-mapped."""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from filelock import FileLock

from gconet_jax.input_pipeline.checks import each_image, open_pair, without_bad
from gconet_jax.input_pipeline.files import (
    DataError,
    ImageFile,
    Record,
    UnreadableError,
    identity,
)
from gconet_jax.input_pipeline.groups import Group
from gconet_jax.input_pipeline.pixels import to_square

FORMAT = 1  # version of the file format; a change rebuilds every cache
# Hexadecimal digits of a cache's key: the location of the files, and their state.
SOURCE_DIGITS, STATE_DIGITS = 6, 10
_DIGIT = '[0-9a-f]'  # glob pattern
BLOCK_BYTES = 2**24  # bytes per write
_DONE = 'cache.json'  # problem of each image; exists only in complete caches


class Cache(NamedTuple):
    """A cached set.

    Attributes:
        folder: folder of images.npy (M, S, S, 3) and masks.npy (M, S, S), uint8.
        groups: groups of the set, without skipped images.
        rows: for each group, int64 (n,), the rows of its images in the arrays.
    """

    folder: Path
    groups: tuple[Group, ...]
    rows: tuple[np.ndarray, ...]


def cached(
    groups: Sequence[Group], *, image_size: int, folder: Path, skip_bad: bool = False
) -> Cache:
    """Return the cache of a set, and build it if it is missing or a file has changed.

    A cache is built in a temporary folder and then renamed, so it is either complete or absent. A
    second process waits for the first and uses its cache. Caches of earlier states of the set and
    leftovers of killed builds are deleted; caches of a set with the same name in another folder are
    kept.

    Args:
        groups: all groups of one set, with masks. Their paths, as spelled, identify the cache.
        image_size: height and width, pixels.
        folder: folder of all caches.
        skip_bad: skip unusable images instead of raising.

    Raises:
        DataError: files are unusable (see `checks.open_pair`), the folder cannot be written, or the
            disk is full.
    """
    name = f'{groups[0].dataset}-{image_size}'
    final = folder / f'{name}-{_key(groups, image_size)}'
    if not (final / _DONE).is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f'.{name}.lock'):
                if not (final / _DONE).is_file():
                    _remove_partial(folder, name)
                    _build(groups, image_size, final, skip_bad)
                    _remove_earlier(final)
        except OSError as error:
            raise DataError(
                f'cannot build the cache {final}: {error}; make room, name another folder in '
                'data.cache_dir, or do without: data.cache=False'
            ) from error
    found = json.loads((final / _DONE).read_text(encoding='utf-8'))
    good = without_bad(groups, found, skip_bad=skip_bad)
    rows, first = [], 0
    for several in found:
        kept = [first + i for i, problem in enumerate(several) if not problem]
        first += len(several)
        if kept:
            rows.append(np.array(kept))
    return Cache(final, good, tuple(rows))


def _build(groups: Sequence[Group], image_size: int, final: Path, skip_bad: bool) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f'.{final.name}-', dir=final.parent))
    try:
        count = sum(len(group.images) for group in groups)
        shape = (count, image_size, image_size)
        images = _reserve(partial / 'images.npy', (*shape, 3))
        masks = _reserve(partial / 'masks.npy', shape)
        rows = {image: row for row, image in enumerate(i for g in groups for i in g.images)}

        def fill(image: ImageFile, mask: ImageFile | None) -> str | None:
            assert mask is not None
            try:
                pixels, truth = open_pair(image, mask)
            except DataError as error:
                if skip_bad and isinstance(error, UnreadableError):
                    raise  # may be temporary; the cache would skip the image for good
                return str(error)
            images[rows[image]] = to_square(pixels, image_size)
            masks[rows[image]] = to_square(truth, image_size)
            return None

        found = each_image(groups, fill, title=f'caching {groups[0].dataset}')
        if not skip_bad:  # with skip_bad the caller reports what is skipped
            without_bad(groups, found, skip_bad=False)
        images.flush()
        masks.flush()
        (partial / _DONE).write_text(json.dumps(found), encoding='utf-8')
        if final.exists():
            shutil.rmtree(final)
        partial.chmod(0o755)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Create an array on disk and allocate all its space now, so that later writes cannot fail."""
    array = np.lib.format.open_memmap(path, 'w+', np.uint8, shape)
    with path.open('r+b') as file:
        if hasattr(os, 'posix_fallocate'):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        else:  # macOS
            _write_zeros(file, from_=array.offset)
    return array


def _write_zeros(file: BinaryIO, *, from_: int) -> None:
    """Allocate a file from byte `from_` to its end by writing zeros."""
    left = file.seek(0, os.SEEK_END) - from_
    file.seek(from_)
    while left > 0:
        left -= file.write(bytes(min(left, BLOCK_BYTES)))


def _key(groups: Sequence[Group], image_size: int) -> str:
    """Return the key of a cache: digits for the set's folder, then for the state of its files.

    The state changes with the format, the size, and the name, length and time of any file.
    """
    first = groups[0].images[0]
    source = Path(first.folder) if isinstance(first, Record) else cast(Path, first).parent
    state = hashlib.blake2b(f'{FORMAT} {image_size}'.encode())
    for group in groups:
        state.update(f'\0{group.name}'.encode())
        for file in (*group.images, *group.masks):
            state.update(f'\n{identity(file)}'.encode())
    where = hashlib.blake2b(f'{source.parent}'.encode())
    return where.hexdigest()[:SOURCE_DIGITS] + state.hexdigest()[:STATE_DIGITS]


def _remove_partial(folder: Path, name: str) -> None:
    """Delete what killed builds left behind; the caller must hold the lock of `name`."""
    for path in folder.glob(f'.{glob.escape(name)}-{_DIGIT * (SOURCE_DIGITS + STATE_DIGITS)}-*'):
        shutil.rmtree(path, ignore_errors=True)


def _remove_earlier(final: Path) -> None:
    """Delete caches of earlier states of the same files; open arrays stay readable."""
    # Match the digits exactly: 'A-32-48' is not a state of set 'A' at 32 pixels.
    earlier = glob.escape(final.name[:-STATE_DIGITS]) + _DIGIT * STATE_DIGITS
    for path in final.parent.glob(earlier):
        if path != final and (path / _DONE).is_file():
            shutil.rmtree(path, ignore_errors=True)
