"""The pixels of an image and its mask, at training size."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gconet_jax.input_pipeline.files import ImageFile, open_image
from gconet_jax.input_pipeline.groups import Group

# (group, image) as indices -> image (S, S, 3) and mask (S, S), uint8.
Reader = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def read_image(file: ImageFile, size: int) -> np.ndarray:
    """Read an image as uint8 (size, size, 3), RGB, resized as by torchvision's Resize with PIL.

    Raises:
        DataError: the file cannot be read.
    """
    return to_square(open_image(file, 'RGB'), size)


def read_mask(file: ImageFile, size: int) -> np.ndarray:
    """Read a mask as uint8 (size, size), 0..255; edges stay grey, as in the released code.

    Raises:
        DataError: the file cannot be read.
    """
    return to_square(open_image(file, 'L'), size)


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """Resize to uint8 (size, size) or (size, size, 3), bilinear with PIL's antialiasing."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


class Decoder:
    """A `Reader` that decodes files."""

    def __init__(self, groups: Sequence[Group], image_size: int) -> None:
        self._groups, self._image_size = groups, image_size

    def __call__(self, group: int, image: int) -> tuple[np.ndarray, np.ndarray]:
        files = self._groups[group]
        return (
            read_image(files.images[image], self._image_size),
            read_mask(files.masks[image], self._image_size),
        )


@functools.cache
def open_arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Open the images (M, S, S, 3) and masks (M, S, S) of a cache, memory-mapped and read-only."""
    images, masks = (np.load(folder / f'{name}.npy', mmap_mode='r') for name in ('images', 'masks'))
    return images, masks


class CacheReader:
    """A `Reader` of caches. It is cheap to send to a worker, which maps the arrays itself."""

    def __init__(self, places: Sequence[tuple[Path, np.ndarray]]) -> None:
        """Create a reader from each group's cache folder and its rows there."""
        self._places = places

    def __call__(self, group: int, image: int) -> tuple[np.ndarray, np.ndarray]:
        folder, rows = self._places[group]
        images, masks = open_arrays(folder)
        return images[rows[image]], masks[rows[image]]
