"""Image files, on disk or in a prepared set, and how they are decoded."""

import functools
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from gconet_jax.errors import InputError, missing_package

EXIF_ORIENTATION = 0x0112
# The formats to read, by PIL's names. PIL must not try others, whatever the suffix: it would pass
# PostScript to Ghostscript, which would execute it.
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'GIF')

# Silence PIL's warnings about odd metadata and large images, which `refuse_large` handles. Filters
# are global to the process, so a temporary change would not be safe in threads.
warnings.filterwarnings('ignore', module=r'PIL\.')


class DataError(InputError):
    """The files of a data set have a problem; the message names it and the fix."""


class UnreadableError(DataError):
    """The disk fails to deliver an existing file, which may be temporary; the file may be fine."""


class ImageFile(Protocol):
    """What the pipeline needs of an image file; `pathlib.Path` and `Record` both provide it."""

    @property
    def stem(self) -> str:
        """The name without suffix, unique in its group, and the name of the image's map."""
        ...

    def read_bytes(self) -> bytes:
        """Return the encoded file."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """An image or mask in a set that `data/prepare.py` made.

    Attributes:
        folder: folder of the prepared set, with its `dataset_info.json`.
        index: index of the record in the only split of the set.
        part: 'image' or 'mask'.
        stem: name without suffix.
    """

    folder: str
    index: int
    part: str
    stem: str

    def read_bytes(self) -> bytes:
        """Return the encoded file."""
        return open_prepared(self.folder)[self.index][self.part]

    def __str__(self) -> str:
        return f'{self.folder}: {self.part} {self.stem} (record {self.index})'


@functools.cache
def open_prepared(folder: str) -> Any:
    """Return random access to the records of a prepared set, with images still encoded.

    Raises:
        DataError: the folder holds no prepared set, or one that TFDS cannot read.
    """
    try:
        import tensorflow_datasets as tfds  # takes a second, and plain folders do not need it

        builder: Any = tfds.builder_from_directory(folder)
        (split,) = builder.info.splits
        skip = tfds.decode.SkipDecoding()
        return builder.as_data_source(split, decoders={'image': skip, 'mask': skip})
    except ImportError as error:
        raise DataError(f'{folder} cannot be read: {missing_package(error)}') from error
    except Exception as error:  # TFDS raises many types on a bad folder
        raise DataError(
            f'{folder} is no prepared set: {error}; remove it and prepare the set again'
        ) from error


def identity(file: ImageFile) -> str:
    """Return text that changes with the name, length and time of the file or its prepared set."""
    if isinstance(file, Record):
        return f'{file} {_prepared_time(file.folder)}'
    assert isinstance(file, Path)
    try:
        stat = file.stat()
    except OSError as error:  # a broken link is reported when it is read
        return f'{file} {error}'
    return f'{file} {stat.st_size} {stat.st_mtime_ns}'


@functools.cache
def _prepared_time(folder: str) -> int:
    return (Path(folder) / 'dataset_info.json').stat().st_mtime_ns


def open_image(file: ImageFile, mode: str) -> Image.Image:
    """Decode a whole file as 'RGB' or 'L'. EXIF orientation is ignored, as in the released code.

    16-bit grey is scaled to 8 bits, and transparency is dropped.

    Raises:
        DataError: the file is missing, broken, truncated, or has an implausible number of pixels.
        UnreadableError: the disk fails to deliver the file.
    """
    return _read(file, lambda image: _convert(image, mode))


def open_grey(file: ImageFile) -> tuple[Image.Image, str]:
    """Return `open_image(file, 'L')` and PIL's mode of the stored image, such as 'RGB'."""
    return _read(file, lambda image: (_convert(image, 'L'), image.mode))


def size_of(file: ImageFile) -> tuple[int, int]:
    """Return (width, height), from the header alone.

    Raises:
        DataError: the file is missing or not an image.
    """
    return _read(file, lambda image: image.size)


def exif_turns(file: ImageFile) -> bool:
    """Return True if EXIF asks for a quarter turn, which this project ignores."""
    return _read(file, lambda image: image.getexif().get(EXIF_ORIENTATION, 1) >= 5)


def _read(file: ImageFile, use: Callable[[Image.Image], Any]) -> Any:
    try:
        with Image.open(io.BytesIO(_content(file)), formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None:  # PIL itself only warns, up to twice its limit
                refuse_large(image, Image.MAX_IMAGE_PIXELS)
            return use(image)
    except UnreadableError:
        raise
    except Exception as error:  # PIL's decoders raise nearly any type on a broken file
        raise DataError(
            f'cannot read image {file}: {error or type(error).__name__}; replace or remove the file'
        ) from error


def _content(file: ImageFile) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError(
            f'cannot read {file}: {error}; see to the disk and to permissions, and run it again'
        ) from error


def refuse_large(image: Image.Image, most: int) -> None:
    """Raise ValueError if an opened but undecoded image has more than `most` pixels."""
    if image.width * image.height > most:
        raise ValueError(
            f'{image.width} x {image.height} pixels are more than {most:,}; make it smaller first'
        )


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith('I'):  # 16-bit; PIL would clip values at 255
        image.load()
        high = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(high, 0, 255).astype(np.uint8))
    elif image.mode == 'P' and 'transparency' in image.info:  # avoids a warning of PIL
        image = image.convert('RGBA')
    return image.convert(mode)
