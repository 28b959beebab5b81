"""Photos as users have them: upright pixels from any file, and groups from any folders."""

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
    """Reads a photo as RGB uint8 (H, W, 3), turned as its EXIF orientation says.

    Unlike the images of a data set, whose masks are stored unturned. Of an animation it is the
    first frame; what is transparent becomes white; 16 bits are scaled to 8.

    Raises:
        DataError: the file is missing, broken, no picture, or of more than `max_pixels`, which is
            found before it is decoded.
    """
    try:
        data = file.read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            refuse_large(image, max_pixels)
            image.load()
            return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:  # a broken file makes PIL's decoders raise nearly anything
        unknown = isinstance(error, UnidentifiedImageError)  # whose text names a buffer
        text = 'it is no picture' if unknown else str(error) or type(error).__name__
        raise DataError(f'cannot read {file}: {text}') from error


def find_groups(inputs: Sequence[Path], *, leave_out: Path | None = None) -> dict[str, list[Path]]:
    """The photos of each group, sorted, by the name of the group.

    A folder that holds photos is a group of its name; each folder below it that holds some is one
    too, of its path from there. Photos that are given themselves are one group, of the name of
    the folder of the first. Of groups of one name the later ones get a number.

    Args:
        inputs: folders and photos.
        leave_out: a folder that is passed over where it lies below an input: that of the results,
            which are no photos of the next run.

    Raises:
        DataError: an input is not there, or is the folder to leave out, or there are no photos.
    """
    left_out = leave_out.resolve() if leave_out else None
    groups: dict[str, list[Path]] = {}
    taken: set[str] = set()
    inputs = list({path.resolve(): path for path in inputs}.values())  # none twice
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
    """A name without suffix for what is made of each file of a group.

    Where two files differ in their suffix or their folder alone, all keep the suffix, and later
    ones get a number. Names that differ in case alone count as equal, as they are one file on
    Windows and macOS.
    """
    stems = Counter(file.stem.casefold() for file in files)
    taken: set[str] = set()
    names = []
    for file in files:
        alone = stems[file.stem.casefold()] == 1
        names.append(_free(file.stem if alone else f'{file.stem}_{file.suffix[1:]}', taken))
    return names


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I') or image.mode == 'F':  # PIL would cut values off at 255
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
    """Return the name, with a number if it is in `taken` in any case, and add it there."""
    numbered, i = name, 2
    while numbered.casefold() in taken:
        numbered, i = f'{name}_{i}', i + 1
    taken.add(numbered.casefold())
    return numbered
