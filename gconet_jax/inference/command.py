"""What `predict.py` does: photos in folders in, maps and pictures of each group out."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet_jax.errors import InputError
from gconet_jax.futures import in_order
from gconet_jax.inference import outputs
from gconet_jax.inference.cosegment import cosegment, on_background
from gconet_jax.inference.photos import find_groups, output_names, read_photo
from gconet_jax.inference.predictor import Predictor, resize_map
from gconet_jax.inference.thumbnail import thumbnail
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.pixels import to_square

# What can be made, and the suffix of its files: `<out>/<kind>/<group>/<name><suffix>`, but for
# sheets, `<out>/sheets/<group>.jpg`.
KINDS = {
    'maps': '.png',
    'masks': '.png',
    'overlays': '.jpg',
    'cutouts': '.png',
    'cosegments': '.png',
    'thumbnails': '.jpg',
    'sheets': '.jpg',
}
THREADS = 4  # that read, and that write
SHEET_PHOTOS = 60  # of a group, evenly spread, at most


@dataclass(frozen=True)
class Options:
    """What is predicted and what is made of it.

    Attributes:
        inputs: see `photos.find_groups`.
        out: folder of what is made.
        kinds: keys of KINDS.
        background: (R, G, B) behind co-segmented objects.
        thumbnail_size: (width, height), pixels.
        resume: passes over groups whose files are all there.
        share: (i, n): this process takes every n-th group from the i-th, counted from 0.
    """

    inputs: tuple[Path, ...]
    out: Path
    kinds: tuple[str, ...]
    background: tuple[int, int, int]
    thumbnail_size: tuple[int, int]
    resume: bool
    share: tuple[int, int]


class Loaded(NamedTuple):
    """The photos of a group that could be read, at the network's size (S, S, 3)."""

    group: str
    names: list[str]
    files: list[Path]
    squares: list[np.ndarray]
    problems: list[str]


def predict(predictors: Sequence[Predictor], options: Options) -> list[str]:
    """Predicts every group and writes what is made of it, with progress.

    A file is written whole or not at all. Groups are shared by the predictors, one on each device.

    Returns:
        Lines about files that could not be read, which were passed over.

    Raises:
        InputError: an unknown kind, a share that is none, nothing to read, or nothing that could
            be read.
    """
    unknown = sorted(set(options.kinds) - set(KINDS))
    if unknown:
        raise InputError(f'--save: {", ".join(unknown)} unknown; there are {", ".join(KINDS)}')
    process, processes = options.share
    if not 0 <= process < processes:
        raise InputError(f'--process={process} --processes={processes}: they are 0 to N - 1 of N')
    found = find_groups(options.inputs)
    mine = list(found.items())[process::processes]
    names = {group: output_names(files) for group, files in mine}
    todo = [
        (group, files)
        for group, files in mine
        if not (options.resume and _is_done(group, names[group], files, options))
    ]
    if len(todo) < len(mine):
        print(f'{len(mine) - len(todo)} of {len(mine)} groups are done already')
    problems: list[str] = []
    total = sum(len(files) for _, files in todo)
    with (
        ThreadPoolExecutor(THREADS) as readers,
        ThreadPoolExecutor(len(predictors)) as devices,
        tqdm(total=total, unit='photo', leave=None) as bar,
    ):
        listed = [(group, names[group], files) for group, files in todo]
        loaded = _ahead(readers, listed, predictors[0].image_size)

        def submitted() -> Iterator[Future[None]]:
            for i, group in enumerate(loaded):
                problems.extend(group.problems)
                bar.update(len(group.problems))
                if group.files:
                    predictor = predictors[i % len(predictors)]
                    yield devices.submit(_make, predictor, group, options, bar)

        done = list(in_order(submitted(), len(predictors)))
    if todo and not done:
        raise InputError('none of the files could be read:\n  ' + '\n  '.join(problems[:10]))
    return problems


def _is_done(group: str, names: Sequence[str], files: Sequence[Path], options: Options) -> bool:
    """Whether everything is there but for files that cannot be read, as they could not before."""
    if 'sheets' in options.kinds and not _sheet(group, options).is_file():
        return False
    for name, file in zip(names, files, strict=True):
        made = [_path(kind, group, name, options) for kind in options.kinds if kind != 'sheets']
        if not all(path.is_file() for path in made) and _can_be_read(file):
            return False
    return True


def _can_be_read(file: Path) -> bool:
    try:
        read_photo(file)
    except DataError:
        return False
    return True


def _path(kind: str, group: str, name: str, options: Options) -> Path:
    return options.out / kind / group / f'{name}{KINDS[kind]}'


def _sheet(group: str, options: Options) -> Path:
    return options.out / 'sheets' / f'{group}{KINDS["sheets"]}'


def _ahead(
    readers: ThreadPoolExecutor, groups: Sequence[tuple[str, list[str], list[Path]]], size: int
) -> Iterator[Loaded]:
    """Each group, decoded while the one before it is in use."""

    def start(i: int) -> list[Future[np.ndarray]]:
        return [readers.submit(_read_square, file, size) for file in groups[i][2]]

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


def _make(predictor: Predictor, group: Loaded, options: Options, bar: tqdm) -> None:
    """Predicts a group and writes its files.

    Photos are read once more to be written, for all of a large group would not fit in memory.
    """
    (prediction,) = predictor.predict([np.stack(group.squares)])
    step = -(-len(group.files) // SHEET_PHOTOS)
    tiles = []
    with ThreadPoolExecutor(THREADS) as writers:
        futures = [
            writers.submit(_write, group.group, name, file, pixels, i % step == 0, options)
            for i, (name, file, pixels) in enumerate(
                zip(group.names, group.files, prediction.maps, strict=True)
            )
        ]
        for future in futures:
            tiles += future.result()
            bar.update()
    if tiles:
        outputs.write_whole(_sheet(group.group, options), outputs.contact_sheet(tiles))


def _write(
    group: str, name: str, file: Path, pixels: np.ndarray, in_sheet: bool, options: Options
) -> list[Image.Image]:
    """The files of one photo, from its map (S, S); returns its tile for the sheet, if it has one.

    Raises:
        DataError: the photo was there and is not any more.
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
            outputs.write_whole(_path(kind, group, name, options), picture)
    return [outputs.tile(photo, pixels)] if in_sheet and 'sheets' in options.kinds else []
