"""The implementation of `predict.py`: folders of photos in, maps and pictures of groups out."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet_jax.device_memory import memory_errors
from gconet_jax.errors import InputError
from gconet_jax.futures import in_order
from gconet_jax.inference import outputs
from gconet_jax.inference.cosegment import cosegment, on_background
from gconet_jax.inference.options import Options
from gconet_jax.inference.out_folder import writing_to
from gconet_jax.inference.predictor import Predictor, resize_map
from gconet_jax.inference.thumbnail import thumbnail
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.photos import find_groups, output_names, read_photo
from gconet_jax.input_pipeline.pixels import to_square

THREADS = 4  # for reading, and as many per device for writing
SHEET_PHOTOS = 60  # most photos of a group in its contact sheet, evenly spread


class Group(NamedTuple):
    """A group of photos, and the name of each photo's output files."""

    name: str
    names: list[str]
    files: list[Path]


class Loaded(NamedTuple):
    """The readable photos of a group, resized for the network, uint8 (S, S, 3) each."""

    group: str
    names: list[str]
    files: list[Path]
    squares: list[np.ndarray]
    problems: list[str]


@memory_errors()
def predict(predictors: Sequence[Predictor], options: Options) -> list[str]:
    """Predict all groups and write their output files, with a progress bar.

    Files are written atomically.

    Args:
        predictors: one per device; the groups are distributed over them.
        options: what to predict and what to write.

    Returns:
        A line about each file that was skipped because it could not be read.

    Raises:
        InputError: there are no photos, none could be read now or in an earlier run, or the output
            directory is not writable.
    """
    found = find_groups(options.inputs, leave_out=options.out)
    process, processes = options.share
    mine = [
        Group(name, output_names(files), files)
        for name, files in list(found.items())[process::processes]
    ]
    with writing_to(options.out):
        todo = [group for group in mine if not (options.resume and _is_done(group, options))]
        if len(todo) < len(mine):
            print(f'{len(mine) - len(todo)} of {len(mine)} groups are done already')
        problems = _predict(predictors, todo, options)
    none_read = len(problems) == sum(len(group.files) for group in todo)
    if todo and none_read and len(todo) == len(mine):
        raise InputError('none of the files could be read:\n  ' + '\n  '.join(problems[:10]))
    return problems


def _predict(predictors: Sequence[Predictor], todo: Sequence[Group], options: Options) -> list[str]:
    """Predict the groups `todo`; return a line about each file that could not be read."""
    problems: list[str] = []
    with (
        _pool(THREADS) as readers,
        _pool(THREADS * len(predictors)) as writers,
        _pool(len(predictors)) as devices,
        tqdm(total=sum(len(group.files) for group in todo), unit='photo', leave=None) as bar,
    ):
        loaded = _ahead(readers, todo, predictors[0].image_size)

        def submitted() -> Iterator[Future[list[str]]]:
            for i, group in enumerate(loaded):
                problems.extend(group.problems)
                bar.update(len(group.problems))
                if group.files:
                    predictor = predictors[i % len(predictors)]
                    yield devices.submit(_make, predictor, writers, group, options, bar)

        for vanished in in_order(submitted(), len(predictors)):
            problems.extend(vanished)
    return problems


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; if the block fails or is interrupted, cancel its pending work."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _is_done(group: Group, options: Options) -> bool:
    """Return True if the group has output, and only unreadable photos have none."""
    if 'sheets' in options.kinds and not options.sheet(group.name).is_file():
        return False
    kinds = [kind for kind in options.kinds if kind != 'sheets']
    there = [
        all(options.path(kind, group.name, name).is_file() for kind in kinds)
        for name in group.names
    ]
    missing = [file for file, made in zip(group.files, there, strict=True) if not made]
    return any(there) and not any(map(_can_be_read, missing))


def _can_be_read(file: Path) -> bool:
    try:
        read_photo(file)
    except DataError:
        return False
    return True


def _ahead(readers: ThreadPoolExecutor, groups: Sequence[Group], size: int) -> Iterator[Loaded]:
    """Yield each group, decoded while the previous one is in use."""

    def start(i: int) -> list[Future[np.ndarray]]:
        return [readers.submit(_read_square, file, size) for file in groups[i].files]

    next_one = start(0) if groups else []
    for i, (group, names, files) in enumerate(groups):
        futures, next_one = next_one, start(i + 1) if i + 1 < len(groups) else []
        loaded = Loaded(group, [], [], [], [])
        for name, file, future in zip(names, files, futures, strict=True):
            try:
                square = future.result()
            except DataError as error:
                loaded.problems.append(str(error))
                continue
            loaded.names.append(name)
            loaded.files.append(file)
            loaded.squares.append(square)
        yield loaded


def _read_square(file: Path, size: int) -> np.ndarray:
    return to_square(Image.fromarray(read_photo(file)), size)


def _make(
    predictor: Predictor, writers: ThreadPoolExecutor, group: Loaded, options: Options, bar: tqdm
) -> list[str]:
    """Predict a group and write its files.

    Photos are read again for writing, because a large group would not fit in memory at full size.

    Returns:
        A line about each photo that could not be read again.
    """
    prediction = predictor.predict(np.stack(group.squares))
    step = -(-len(group.files) // SHEET_PHOTOS)
    tiles, problems = [], []
    futures = [
        writers.submit(_write, group.group, name, file, pixels, i % step == 0, options)
        for i, (name, file, pixels) in enumerate(
            zip(group.names, group.files, prediction.maps, strict=True)
        )
    ]
    for future in futures:
        try:
            tiles += future.result()
        except DataError as error:
            problems.append(str(error))
        bar.update()
    if tiles:
        outputs.write_whole(options.sheet(group.group), outputs.contact_sheet(tiles))
    return problems


def _write(
    group: str, name: str, file: Path, pixels: np.ndarray, in_sheet: bool, options: Options
) -> list[Image.Image]:
    """Write the files of one photo, given its map `pixels` (S, S) in [0, 1].

    Returns:
        Its tile for the contact sheet, or nothing if it has none.

    Raises:
        DataError: the photo can no longer be read.
    """
    photo = read_photo(file)
    pixels = resize_map(pixels, photo.shape[:2])
    makers = {
        'maps': lambda: outputs.grey(pixels),
        'masks': lambda: outputs.adaptive_mask(pixels).astype(np.uint8) * 255,
        'overlays': lambda: outputs.overlay(photo, pixels),
        'cutouts': lambda: outputs.cutout(photo, pixels),
        'thumbnails': lambda: thumbnail(photo, pixels, options.thumbnail_size),
        'cosegments': lambda: on_background(photo, cosegment(photo, pixels), options.background),
    }
    for kind in options.kinds:
        if kind in makers:
            picture = Image.fromarray(makers[kind]())
            outputs.write_whole(options.path(kind, group, name), picture)
    return [outputs.tile(photo, pixels)] if in_sheet and 'sheets' in options.kinds else []
