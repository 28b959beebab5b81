"""Users' photos: upright pixels from any file, and groups from any folders."""

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gconet_jax.input_pipeline.files import FORMATS, DataError, ImageFile, refuse_large

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif')
MAX_PIXELS = 50_000_000


def read_photo(file: ImageFile, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photo as RGB uint8 (H, W, 3), rotated according to its EXIF orientation.

    Images of data sets are not rotated, because their masks are stored unrotated. An animation
    gives its first frame, transparent areas become white, and 16 bits are scaled to 8.

    Raises:
        DataError: the file is missing, broken, not an image, or has more than `max_pixels` pixels,
            which is checked before decoding.
    """
    try:
        data = file.read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            refuse_large(image, max_pixels)
            image.load()
            return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:  # PIL's decoders raise nearly any type on a broken file
        unknown = isinstance(error, UnidentifiedImageError)  # its text names a buffer
        text = 'it is no picture' if unknown else str(error) or type(error).__name__
        raise DataError(f'cannot read {file}: {text}') from error


def find_groups(inputs: Sequence[Path], *, leave_out: Path | None = None) -> dict[str, list[Path]]:
    """Return the photos of each group, sorted, keyed by the name of the group.

    A folder with photos is a group with the folder's name. Each folder with photos below it is a
    group too, named by its relative path. Photos given directly form one group, named after the
    folder of the first. If names repeat, later groups get a number.

    Args:
        inputs: folders and photos.
        leave_out: folder to skip below an input: the output directory, whose pictures are not
            input.

    Raises:
        DataError: an input does not exist or is `leave_out`, or there are no photos.
    """
    left_out = leave_out.resolve() if leave_out else None
    groups: dict[str, list[Path]] = {}
    taken: set[str] = set()
    inputs = list({path.resolve(): path for path in inputs}.values())  # without duplicates
    single = [path for path in inputs if path.is_file()]
    if single:
        groups[_free(single[0].resolve().parent.name or 'photos', taken)] = single
    for path in inputs:
        if not path.exists():
            raise DataError(f'{path} is neither a folder nor a file')
        if path.is_dir() and path.resolve() == left_out:
            raise DataError(f'{path} has the photos; name another folder for the results')
        for folder, subfolders, names in os.walk(path) if path.is_dir() else ():
            subfolders[:] = sorted(
                name
                for name in subfolders
                if not name.startswith('.') and (Path(folder) / name).resolve() != left_out
            )
            photos = [Path(folder) / name for name in sorted(names) if _is_photo(name)]
            if photos:
                below = Path(folder).relative_to(path)
                name = path.resolve().name if below == Path() else below.as_posix()
                groups[_free(name, taken)] = photos
    if not groups:
        raise DataError(
            f'no photos ({", ".join(SUFFIXES)}) in {", ".join(str(path) for path in inputs)}'
        )
    return groups


def output_names(files: Sequence[Path]) -> list[str]:
    """Return a name without suffix for the outputs of each file of a group.

    Files that differ only in suffix or folder keep the suffix in their name, and later ones get a
    number. Names that differ only in case count as equal, because they are one file on Windows and
    macOS.
    """
    stems = Counter(file.stem.casefold() for file in files)
    taken: set[str] = set()
    names = []
    for file in files:
        alone = stems[file.stem.casefold()] == 1
        names.append(_free(file.stem if alone else f'{file.stem}_{file.suffix[1:]}', taken))
    return names


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I') or image.mode == 'F':  # PIL would clip values at 255
        values = np.asarray(image).astype(np.float64)
        scale = 65535 if image.mode != 'F' else max(float(values.max()), 1.0)
        image = Image.fromarray(np.clip(255 * values / scale, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layers = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), layers)
    return image.convert('RGB')


def _is_photo(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith('.')


def _free(name: str, taken: set[str]) -> str:
    """Return the name, with a number if `taken` has it in any case, and add it to `taken`."""
    numbered, i = name, 2
    while numbered.casefold() in taken:
        numbered, i = f'{name}_{i}', i + 1
    taken.add(numbered.casefold())
    return numbered
