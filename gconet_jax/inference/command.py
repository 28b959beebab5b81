"""What `predict.py` does: photos in folders in, maps and pictures of each group out."""

import collections
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from gconet_jax.errors import InputError
from gconet_jax.inference import outputs
from gconet_jax.inference.cosegment import cosegment, on_background
from gconet_jax.inference.photos import find_groups, output_names, read_photo
from gconet_jax.inference.predictor import Predictor
from gconet_jax.inference.thumbnail import thumbnail
from gconet_jax.input_pipeline.files import DataError

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
    """The photos of a group that could be read."""

    group: str
    names: list[str]
    photos: list[np.ndarray]
    problems: list[str]


def predict(predictors: Sequence[Predictor], options: Options) -> list[str]:
    """Predicts every group and writes what is made of it, with progress.

    A file is written whole or not at all. Groups are shared by the predictors, one on each device.

    Returns:
        Lines about files that could not be read, which were passed over.

    Raises:
        InputError: an unknown kind, nothing to read, or nothing that could be read.
    """
    unknown = sorted(set(options.kinds) - set(KINDS))
    if unknown:
        raise InputError(f'--save: {", ".join(unknown)} unknown; there are {", ".join(KINDS)}')
    found = find_groups(options.inputs)
    mine = list(found.items())[options.share[0] :: options.share[1]]
    names = {group: output_names(files) for group, files in mine}
    todo = [
        (group, files)
        for group, files in mine
        if not (options.resume and _is_done(group, names[group], files, options))
    ]
    if len(todo) < len(mine):
        print(f'{len(mine) - len(todo)} of {len(mine)} groups are done already')
    problems: list[str] = []
    done = 0
    total = sum(len(files) for _, files in todo)
    with (
        ThreadPoolExecutor(THREADS) as readers,
        ThreadPoolExecutor(len(predictors)) as devices,
        tqdm(total=total, unit='photo', leave=None) as bar,
    ):
        loaded = _ahead(readers, [(group, names[group], files) for group, files in todo])
        running: collections.deque[Future[None]] = collections.deque()
        for i, group in enumerate(loaded):
            problems += group.problems
            done += len(group.photos)
            bar.update(len(group.problems))
            if group.photos:
                predictor = predictors[i % len(predictors)]
                running.append(devices.submit(_make, predictor, group, options, bar))
            if len(running) > len(predictors):
                running.popleft().result()
        for future in running:
            future.result()
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
    readers: ThreadPoolExecutor, groups: Sequence[tuple[str, list[str], list[Path]]]
) -> Iterator[Loaded]:
    """Each group, decoded while the one before it is in use."""

    def start(i: int) -> list[Future[np.ndarray]]:
        return [readers.submit(read_photo, file) for file in groups[i][2]]

    next_one = start(0) if groups else []
    for i, (group, names, _) in enumerate(groups):
        futures, next_one = next_one, start(i + 1) if i + 1 < len(groups) else []
        loaded = Loaded(group, [], [], [])
        for name, future in zip(names, futures, strict=True):
            try:
                photo = future.result()
            except DataError as error:
                loaded.problems.append(str(error))
                continue
            loaded.names.append(name)
            loaded.photos.append(photo)
        yield loaded


def _make(predictor: Predictor, group: Loaded, options: Options, bar: tqdm) -> None:
    """Predicts a group and writes its files."""
    maps = predictor(group.photos)
    with ThreadPoolExecutor(THREADS) as writers:
        futures = [
            writers.submit(_write, group.group, name, photo, pixels, options)
            for name, photo, pixels in zip(group.names, group.photos, maps, strict=True)
        ]
        for future in futures:
            future.result()
            bar.update()
    if 'sheets' in options.kinds:
        sheet = outputs.contact_sheet(group.photos, maps)
        outputs.write_whole(_sheet(group.group, options), sheet)


def _write(group: str, name: str, photo: np.ndarray, pixels: np.ndarray, options: Options) -> None:
    """The files of one photo."""
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
