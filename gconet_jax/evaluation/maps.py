"""Map files: match them to ground truth, read them, and write them like the released code."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gconet_jax.errors import some
from gconet_jax.evaluation.scores import ScoredImage
from gconet_jax.input_pipeline.files import DataError, ImageFile, open_grey, open_image, size_of
from gconet_jax.input_pipeline.groups import Group, list_files
from gconet_jax.input_pipeline.layouts import find_folder
from gconet_jax.interpolation import interpolation_matrix

SHOWN = 5  # files that a message lists before it only counts
GREY = ('L', '1', 'P')  # modes of files that need no conversion


class Truth(NamedTuple):
    """An image to score: its group, name, photograph and mask."""

    group: str
    name: str
    image: ImageFile | None
    mask: ImageFile


def truths_of(groups: Sequence[Group]) -> list[Truth]:
    """Return the images of groups with masks."""
    return [
        Truth(group.name, image.stem, image, mask)
        for group in groups
        for image, mask in zip(group.images, group.masks, strict=True)
    ]


def truths_in(folder: Path) -> list[Truth]:
    """Return the masks `<folder>/<group>/<name>.png`, without photographs.

    Raises:
        DataError: there is none.
    """
    truths = [
        Truth(group, path.stem, None, path)
        for group, paths in list_files(folder).items()
        for path in paths
    ]
    if not truths:
        raise DataError(f'no ground truth in {folder}; it should hold <group>/<name>.png')
    return truths


def maps_folder(maps: Path, dataset: str, *, only: bool) -> Path:
    """Return the folder of a method's maps for a set, `<maps>/<set>` in any case.

    If `only` this set is scored, `maps` may contain the groups directly.

    Raises:
        DataError: there is no such folder.
    """
    if not maps.is_dir():
        raise DataError(f'{maps} is not a folder; it should hold <set>/<group>/<name>.png')
    found = find_folder(maps, dataset)
    if found is None and not only:
        there = ', '.join(sorted(path.name for path in maps.iterdir() if path.is_dir())) or 'none'
        raise DataError(f'{maps} has no maps of {dataset}; folders that are there: {there}')
    return found or maps


def pair(truths: Sequence[Truth], folder: Path) -> tuple[list[ScoredImage], tuple[Path, ...]]:
    """Match every truth with its map `<folder>/<group>/<name>`, of any suffix.

    Returns:
        The matched images, and the stray maps, which belong to no truth.

    Raises:
        DataError: maps are missing; the message gives their number, the first few, and whole
            groups.
    """
    there = list_files(folder)
    files: dict[tuple[str, str], Path] = {}
    for group, paths in there.items():
        for path in sorted(paths, key=lambda path: path.suffix.lower() != '.png'):  # prefer PNG
            files.setdefault((group, path.stem), path)
    wanted = {(truth.group, truth.name) for truth in truths}
    missing = sorted(wanted - files.keys())
    if missing:
        groups = sorted({group for group, _ in missing if not there.get(group)})
        named = some(groups, SHOWN)
        whole = f', {len(groups)} groups with no map at all ({named})' if groups else ''
        names = some([f'{group}/{name}' for group, name in missing], SHOWN)
        raise DataError(
            f'{len(missing)} of {len(wanted)} maps are missing in {folder}{whole}: {names}'
        )
    pairs = [
        ScoredImage(t.group, t.name, t.image, t.mask, files[t.group, t.name], resized=False)
        for t in truths
    ]
    used = {each.map for each in pairs}
    stray = (path for paths in there.values() for path in paths if path not in used)
    return pairs, tuple(stray)


def load_map(file: ImageFile) -> tuple[NDArray[np.uint8], str]:
    """Read a map as grey uint8 (H, W); also return the file's mode if it was not grey, else ''.

    Colours are weighted as in PIL's mode 'L'; 16 bits are scaled to 8.

    Raises:
        DataError: the file is missing, broken, or not an image.
    """
    image, mode = open_grey(file)
    return np.array(image), '' if mode in GREY else mode


def resize_map(pixels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Resize a map (h, w) to its truth's shape (H, W): bilinear in 8 bits, as in eval-co-sod."""
    size = (shape[1], shape[0])
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def load_truth(file: ImageFile) -> NDArray[np.uint8]:
    """Read a mask as grey uint8 (H, W); raise DataError as `load_map` does."""
    return np.array(open_image(file, 'L'))


def write_map(pixels: NDArray[np.float32], image: ImageFile, path: Path) -> NDArray[np.uint8]:
    """Write a map (h, w) in [0, 1] as 8-bit PNG at the size of its image; return what is written.

    As in the released code: bilinear with aligned corners, then 255·M rounded down.
    """
    width, height = size_of(image)
    rows = interpolation_matrix(pixels.shape[0], height)
    columns = interpolation_matrix(pixels.shape[1], width)
    grey = np.clip(rows @ pixels @ columns.T * 255, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
    return grey
