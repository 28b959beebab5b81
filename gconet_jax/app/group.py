"""A visitor's group of photos: reading uploads, predicting maps, making pictures and the zip."""

import io
import re
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from gconet_jax.inference import outputs
from gconet_jax.inference.thumbnail import thumbnail
from gconet_jax.input_pipeline.files import DataError
from gconet_jax.input_pipeline.photos import MAX_PIXELS, read_photo

SIDE = 1024  # pixels; photos are shrunk to at most this height and width
THUMBNAIL = (256, 256)
PICTURES = {  # kinds of picture made from a photo, and their file suffixes
    'overlays': '.jpg',
    'maps': '.png',
    'masks': '.png',
    'cutouts': '.png',
    'thumbnails': '.jpg',
}

Predict = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Limits:
    """Limits for each visitor.

    Attributes:
        photos: most photos in a group; an upload that exceeds it is refused.
        pixels: most pixels in a photo; larger photos are skipped.
        megabytes: most megabytes in an upload, over all files; a larger upload is refused.
        seconds: most seconds for reading an upload; photos not started by then are skipped.
    """

    photos: int = 60
    pixels: int = MAX_PIXELS
    megabytes: int = 100
    seconds: float = 120


class Photo(NamedTuple):
    """A photo in memory: its name, its pixels as JPEG, and its map as PNG once predicted."""

    name: str
    pixels: bytes
    map: bytes | None = None


Group = tuple[Photo, ...]


def take(paths: Sequence[str], group: Group, limits: Limits) -> tuple[Group, str]:
    """Read uploaded files into a group, and delete them in any case.

    Photos are added to the group, unless it already has maps; then they start a new group.

    Args:
        paths: the uploaded files.
        group: the visitor's group so far.
        limits: limits of the upload.

    Returns:
        The new group, or `group` itself if nothing was added, and a message for the visitor: how
        many photos are ready, and which files were refused or skipped and why.
    """
    files = [Path(path) for path in paths]
    try:
        old = () if any(photo.map for photo in group) else group
        count = len(old) + len(files)
        if count > limits.photos:
            return group, f'{count} photos are too many: a group has {limits.photos} at most.'
        size = sum(file.stat().st_size for file in files if file.exists()) / 1e6
        if size > limits.megabytes:
            return group, (
                f'{size:.0f} MB are too much: {limits.megabytes} MB at most go at once. Choose '
                'fewer photos, or smaller ones.'
            )
        photos, problems = _read(files, limits)
        if not photos:
            return group, '\n'.join(['None of these files could be read as a photo.', *problems])
        new = (*old, *photos)
        words = '1 photo is ready.' if len(new) == 1 else f'{len(new)} photos are ready.'
        return new, '\n'.join([words, *problems])
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def find(predictor: Predict, group: Group) -> Group:
    """Predict the maps of a group; return the group with them."""
    maps = predictor([decode(photo.pixels) for photo in group])
    return tuple(
        photo._replace(map=encode(outputs.grey(pixels), 'PNG'))
        for photo, pixels in zip(group, maps, strict=True)
    )


def pictures(photo: Photo, threshold: float, *, side: int = SIDE) -> dict[str, np.ndarray]:
    """Make the pictures of a photo from its existing map.

    Args:
        photo: a photo with a map.
        threshold: of the mask, in (0, 1]; 0 selects the adaptive threshold.
        side: largest height and width of the pictures, pixels.

    Returns:
        uint8 pictures by the names of PICTURES.
    """
    assert photo.map is not None
    pixels, grey = shrink(decode(photo.pixels), side), shrink(decode(photo.map), side)
    values = grey.astype(np.float32) / 255
    mask = values >= threshold if threshold > 0 else outputs.adaptive_mask(values)
    return {
        'overlays': outputs.overlay(pixels, values, mask),
        'maps': grey,
        'masks': mask.astype(np.uint8) * 255,
        'cutouts': outputs.cutout(pixels, mask.astype(np.float32)),
        'thumbnails': thumbnail(pixels, values, THUMBNAIL),
    }


def write_zip(path: Path, group: Group, threshold: float) -> None:
    """Write all pictures of a group to a zip, as `<kind>/<number>_<name><suffix>`.

    Numbers start at 1 and follow the order of the group. All photos must have maps.
    """
    with zipfile.ZipFile(path, 'w') as archive:  # uncompressed: JPEG and PNG already are
        for i, photo in enumerate(group, 1):
            for kind, picture in pictures(photo, threshold).items():
                name = f'{kind}/{i:02}_{_safe(photo.name)}{PICTURES[kind]}'
                archive.writestr(name, encode(picture, 'JPEG' if '.jpg' in name else 'PNG'))


def example() -> Group:
    """Draw four scenes that have only a golden ring in common."""
    group = []
    for i, (x, y) in enumerate([(90, 100), (220, 130), (130, 150), (240, 90)]):
        rng = np.random.default_rng(i)
        ground = np.linspace(170, 235, 240)[:, None, None] - rng.uniform(0, 40, 3)
        noise = rng.normal(0, 5, (240, 320, 3))
        scene = Image.fromarray((ground + noise).clip(0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(scene)
        colour = [(60, 110, 200), (70, 160, 90), (150, 90, 180), (70, 70, 80)][i]
        pen.regular_polygon((320 - x, 240 - y, 44), i + 3, rotation=10 * i, fill=colour)
        pen.ellipse((x - 48, y - 48, x + 48, y + 48), outline=(240, 170, 20), width=22)
        group.append(Photo(f'drawn {i + 1}', encode(np.asarray(scene), 'JPEG')))
    return tuple(group)


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """Shrink uint8 (H, W) or (H, W, C) to at most `side` pixels in height and width."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.asarray(image)


def encode(pixels: np.ndarray, kind: str) -> bytes:
    """Encode uint8 pixels as a file of `kind`, 'JPEG' or 'PNG'."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=95, compress_level=3)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Decode the pixels of a file made by `encode`."""
    return np.asarray(Image.open(io.BytesIO(data)))


def _read(files: Sequence[Path], limits: Limits) -> tuple[list[Photo], list[str]]:
    """Read and shrink photos; return them and a line about each file that was skipped."""
    photos, problems = [], []
    end = time.monotonic() + limits.seconds
    for file in files:
        if time.monotonic() >= end:
            problems.append(f'Passed over: {file.name}: {limits.seconds:g} seconds are over')
            continue
        if not file.exists():  # gradio stores equal files of all visitors at one path
            problems.append(
                f'Passed over: {file.name}: somebody sent the same file at this moment; drop it '
                'once more'
            )
            continue
        try:
            pixels = shrink(read_photo(file, max_pixels=limits.pixels), SIDE)
        except DataError as error:  # its message has the path on the server
            problems.append(f'Passed over: {error}'.replace(str(file), file.name))
            continue
        photos.append(Photo(file.name, encode(pixels, 'JPEG')))
    return photos, problems


def _safe(name: str) -> str:
    """Reduce an uploaded file's name to what is valid in file names on every system."""
    return re.sub(r'[^\w -]+', '_', Path(name).stem)[:60]
