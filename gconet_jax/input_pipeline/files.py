"""Image files, on disk or inside a prepared set, and how they become pixels."""

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
# PIL's names of what is read. Others are not tried, whatever a file is called: PIL would hand
# PostScript to Ghostscript, which is a program that runs it.
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'GIF')

# PIL's own, of odd metadata and of many pixels, which `refuse_large` is for. Once and for all, as
# filters are the whole process's: a block that changes them for a while is not safe in threads.
warnings.filterwarnings('ignore', module=r'PIL\.')


class DataError(InputError):
    """Something is wrong with the files of a data set; the message names it and the remedy."""


class UnreadableError(DataError):
    """The disk does not give a file that is there; that may pass, and says nothing of the file."""


class ImageFile(Protocol):
    """What the pipeline needs of an image file: a `pathlib.Path` has it, a `Record` too."""

    @property
    def stem(self) -> str:
        """Name without suffix, unique in its group; a map of the image gets this name."""
        ...

    def read_bytes(self) -> bytes:
        """The encoded file."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """An image or mask in a set that `data/prepare.py` made.

    Attributes:
        folder: of the prepared set, which holds its `dataset_info.json`.
        index: of the record in the set's one split.
        part: 'image' or 'mask'.
        stem: name without suffix.
    """

    folder: str
    index: int
    part: str
    stem: str

    def read_bytes(self) -> bytes:
        """The encoded file."""
        return open_prepared(self.folder)[self.index][self.part]

    def __str__(self) -> str:
        return f'{self.folder}: {self.part} {self.stem} (record {self.index})'


@functools.cache
def open_prepared(folder: str) -> Any:
    """Random access to the records of a prepared set, with images still encoded.

    Raises:
      DataError: the folder holds no prepared set, or one that TFDS cannot read.
    """
    try:
        import tensorflow_datasets as tfds  # a second to import, and plain folders do without

        builder: Any = tfds.builder_from_directory(folder)
        (split,) = builder.info.splits
        skip = tfds.decode.SkipDecoding()
        return builder.as_data_source(split, decoders={'image': skip, 'mask': skip})
    except ImportError as error:
        raise DataError(f'{folder} cannot be read: {missing_package(error)}') from error
    except Exception as error:  # whatever a folder that is no data set makes TFDS raise
        raise DataError(
            f'{folder} is no prepared set: {error}; remove it and prepare the set again'
        ) from error


def identity(file: ImageFile) -> str:
    """Changes with the name, the length and the time of the file, or of the set that holds it."""
    if isinstance(file, Record):
        return f'{file} {_prepared_time(file.folder)}'
    assert isinstance(file, Path)
    try:
        stat = file.stat()
    except OSError as error:  # a link to nowhere is reported when it is read
        return f'{file} {error}'
    return f'{file} {stat.st_size} {stat.st_mtime_ns}'


@functools.cache
def _prepared_time(folder: str) -> int:
    return (Path(folder) / 'dataset_info.json').stat().st_mtime_ns


def open_image(file: ImageFile, mode: str) -> Image.Image:
    """Decodes a whole file as 'RGB' or 'L'. As in the released code, EXIF orientation is ignored.

    16-bit grey is scaled to 8 bits, and transparency is dropped.

    Raises:
        DataError: the file is missing, broken, truncated, or has an implausible number of pixels.
        UnreadableError: the disk does not give it.
    """
    return _read(file, lambda image: _convert(image, mode))


def open_grey(file: ImageFile) -> tuple[Image.Image, str]:
    """As `open_image(file, 'L')`, with PIL's name of how pixels are stored, such as 'RGB'."""
    return _read(file, lambda image: (_convert(image, 'L'), image.mode))


def size_of(file: ImageFile) -> tuple[int, int]:
    """(width, height), from the header alone.

    Raises:
        DataError: the file is missing or no image.
    """
    return _read(file, lambda image: image.size)


def exif_turns(file: ImageFile) -> bool:
    """Whether EXIF asks viewers to turn the image by a quarter, which this project does not."""
    return _read(file, lambda image: image.getexif().get(EXIF_ORIENTATION, 1) >= 5)


def _read(file: ImageFile, use: Callable[[Image.Image], Any]) -> Any:
    try:
        with Image.open(io.BytesIO(_content(file)), formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None:  # PIL itself only warns, up to twice its limit
                refuse_large(image, Image.MAX_IMAGE_PIXELS)
            return use(image)
    except UnreadableError:
        raise
    except Exception as error:  # a broken file makes PIL's decoders raise nearly anything
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
    """Raises ValueError if an image, opened but not decoded, has more pixels than `most`."""
    if image.width * image.height > most:
        raise ValueError(
            f'{image.width} x {image.height} pixels are more than {most:,}; make it smaller first'
        )


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith('I'):  # 16-bit; PIL would cut values off at 255
        image.load()
        high = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(high, 0, 255).astype(np.uint8))
    elif image.mode == 'P' and 'transparency' in image.info:  # PIL warns of the direct way
        image = image.convert('RGBA')
    return image.convert(mode)
