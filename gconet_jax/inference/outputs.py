"""What is made of a photo and its map: masks, overlays, cut-outs, a contact sheet; and files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gconet_jax.whole_file import whole_file

TILE = 160  # pixels, height of a photo in a contact sheet
COLUMNS = 4
GAP = 8
NEARLY = 0.9  # of the maximum of a map is the highest adaptive threshold
DIMMED = 0.35  # of its brightness is left to what is not the object
OUTLINE = (255, 60, 60)


def grey(pixels: np.ndarray) -> np.ndarray:
    """A map (H, W) in [0, 1] as uint8: 255·M cut off to whole numbers, as released."""
    return (pixels * 255).astype(np.uint8)


def adaptive_mask(pixels: np.ndarray) -> np.ndarray:
    """The object, bool (H, W): where a map reaches twice its mean, or NEARLY of its maximum.

    GCoNet+, section 5, and Achanta et al. (CVPR 2009) have the maximum itself; of an object that
    fills half of the photo that would leave specks. A black map has no object.
    """
    threshold = min(2 * float(pixels.mean()), NEARLY * float(pixels.max()))
    return (pixels >= threshold) & (pixels > 0)


def overlay(photo: np.ndarray, pixels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The photo (H, W, 3) uint8, dim where the map (H, W) is low, the object outlined.

    `mask` bool (H, W) is outlined instead of the adaptive one, if it is given.
    """
    light = DIMMED + (1 - DIMMED) * pixels[..., None]
    picture = np.ascontiguousarray((photo * light).astype(np.uint8))
    object_ = (adaptive_mask(pixels) if mask is None else mask).astype(np.uint8)
    contours, _ = cv2.findContours(object_, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, OUTLINE, max(1, round(max(photo.shape) / 300)))
    return picture


def cutout(photo: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The photo with the map as its alpha, (H, W, 4) uint8."""
    return np.dstack([photo, grey(pixels)])


def tile(photo: np.ndarray, pixels: np.ndarray) -> Image.Image:
    """`photo | overlay`, small, for a contact sheet."""
    height, width = photo.shape[:2]
    size = (max(1, round(min(width / height, 2) * TILE)), TILE)
    small, small_map = (_small(x, size) for x in (photo, pixels))
    pair = Image.new('RGB', (2 * size[0] + 2, TILE), 'white')
    for x, part in zip((0, size[0] + 2), (small, overlay(small, small_map)), strict=True):
        pair.paste(Image.fromarray(part), (x, 0))
    return pair


def contact_sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    """The tiles of a group in rows."""
    rows = [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    widest = max(sum(tile.width + GAP for tile in row) for row in rows)
    sheet = Image.new('RGB', (widest, len(rows) * (TILE + GAP)), 'white')
    for y, row in enumerate(rows):
        x = 0
        for each in row:
            sheet.paste(each, (x, y * (TILE + GAP)))
            x += each.width + GAP
    return sheet


def write_whole(path: Path, image: Image.Image) -> None:
    """Saves by the suffix, so that the file is there whole or not at all; makes its folder."""
    with whole_file(path) as partial:
        image.save(partial)


def _small(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
